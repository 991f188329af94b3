//go:build linux

package integration

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/adit-overlay/adit/integration/internal/service"
	"github.com/adit-overlay/adit/integration/lab"
)

// TestRekeyUnderLoad renews all keys as often as a file can ask for, while datagrams and a TCP connection flow.
func TestRekeyUnderLoad(t *testing.T) {
	t.Parallel()
	o, relay, hosts := segment(t, "a", "b")
	hostA, hostB := hosts[0], hosts[1]
	desk, web := o.member("desk"), o.member("web")
	const statusAt = "127.0.0.1:8001"
	via, often := o.viaSegment(), "rekey_after: 10s"
	o.relay(relay)
	a := o.start(hostA, asRoot, desk.key, desk.file(via, often, "mode: tun"), "box", "-status", statusAt)
	b := o.box(hostB, web, nil, via, often)
	a.ready()
	b.ready()
	from := byRoute(hostA)
	from.awaitConversation(t, web.addr("IPv4"), soon)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	file := from.follow(ctx, t, web.addr("IPv6"))
	stream := startDatagrams(t, hostA, net.JoinHostPort(web.addr("IPv4"), service.EchoPort))

	const want = 5
	keys, relayKeys := map[time.Time]bool{}, map[time.Time]bool{} // when they were agreed
	for start := time.Now(); min(len(keys), len(relayKeys)) <= want; time.Sleep(100 * time.Millisecond) {
		if time.Since(start) > 3*time.Minute {
			t.Fatalf("after %v there were %d keys with the peer and %d with the relay", time.Since(start), len(keys), len(relayKeys))
		}
		for _, r := range remotes(t, hostA, statusAt) {
			switch {
			case r.Relay:
				relayKeys[r.Since] = true
			case r.Name == web.name:
				keys[r.Since] = true
			}
		}
	}

	sent, lost := stream.end()
	if wantNoneLost(t, sent, lost); t.Failed() {
		t.Logf("keys were agreed with the peer at %v, with the relay at %v", slices.Collect(maps.Keys(keys)), slices.Collect(maps.Keys(relayKeys)))
		for _, h := range []*lab.Host{hostA, hostB, relay} {
			h.Run("cat", "/proc/net/snmp") // is logged, as the test has failed: were full buffers the reason?
		}
	}
	file.wantProgress(t, 1e6, soon)
	stop()
	if err := file.fault(); err != nil {
		t.Error(err)
	}
	t.Logf("%d keys with the peer, %d with the relay: %d datagrams there and back, %d MB by TCP", len(keys), len(relayKeys), sent, file.received()/1e6)
}

// remote is what a test reads of a box's status about one other peer.
type remote struct {
	Name  string
	Relay bool
	Since time.Time
}

func remotes(t *testing.T, h *lab.Host, statusAt string) []remote {
	t.Helper()
	resp, err := byRoute(h).get(t.Context(), statusAt, "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var status struct{ Remotes []remote }
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		t.Fatal(err)
	}
	return status.Remotes
}

// datagrams is a steady stream of numbered datagrams to an echo.
type datagrams struct {
	conn             net.Conn
	quit             chan struct{}
	sender, receiver sync.WaitGroup

	mu       sync.Mutex // guards what follows
	sent     []time.Time
	received map[int]bool
}

// lostDatagram is one that did not come back.
type lostDatagram struct {
	number int
	at     time.Time
}

// wantNoneLost wants all that were sent to have come back. What was under way while the machine was busy may be lost in the buffer of a
// socket that nobody had time to read, and is told of only.
func wantNoneLost(t *testing.T, sent int, lost []lostDatagram) {
	t.Helper()
	var judged []lostDatagram
	for _, l := range lost {
		if !machine.Over(l.at.Add(-underWay), l.at.Add(underWay)).Busy() {
			judged = append(judged, l)
			t.Logf("lost: number %d, sent %v", l.number, l.at)
		}
	}
	if len(judged) > 0 {
		t.Errorf("of %d datagrams %d were lost while the machine was not busy", sent, len(judged))
	}
	if n := len(lost) - len(judged); n > 0 {
		t.Logf("of %d datagrams %d were lost while the machine was busy: not judged", sent, n)
	}
}

// underWay is far longer than a datagram is.
const underWay = 500 * time.Millisecond

// startDatagrams sends 1000 datagrams a second of 800 bytes from h.
func startDatagrams(t *testing.T, h *lab.Host, address string) *datagrams {
	t.Helper()
	conn, err := h.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	// The test's own process may have to wait for the processor: nothing may be lost at its door.
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) }); err != nil || failed != nil {
		t.Fatalf("enlarging the receive buffer: %v, %v", err, failed)
	}
	d := &datagrams{conn: conn, quit: make(chan struct{}), received: make(map[int]bool)}
	d.sender.Go(d.send)
	d.receiver.Go(d.receive)
	return d
}

func (d *datagrams) send() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	b := make([]byte, 800)
	for {
		select {
		case <-tick.C:
		case <-d.quit:
			return
		}
		for range 5 {
			d.mu.Lock()
			binary.BigEndian.PutUint64(b, uint64(len(d.sent)))
			d.sent = append(d.sent, time.Now())
			d.mu.Unlock()
			d.conn.Write(b) // an error is a datagram lost, and will be seen as one
		}
	}
}

func (d *datagrams) receive() {
	b := make([]byte, 1500)
	for {
		n, err := d.conn.Read(b)
		if err != nil {
			return // closed by end, or refused: all that follows is lost
		}
		if n == 800 {
			d.mu.Lock()
			d.received[int(binary.BigEndian.Uint64(b))] = true
			d.mu.Unlock()
		}
	}
}

// end stops sending, waits for what is under way, and tells which did not come back.
func (d *datagrams) end() (sent int, lost []lostDatagram) {
	close(d.quit)
	d.sender.Wait()
	complete := func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.received) == len(d.sent)
	}
	for start := time.Now(); !complete() && time.Since(start) < 10*time.Second; {
		time.Sleep(10 * time.Millisecond) // before the next look
	}
	d.conn.Close()
	d.receiver.Wait()
	for i, at := range d.sent {
		if !d.received[i] {
			lost = append(lost, lostDatagram{i, at})
		}
	}
	return len(d.sent), lost
}

// follower reads a file that has no end, and compares it.
type follower struct {
	mu  sync.Mutex // guards what follows
	n   int64
	err error
}

// follow asks for a file that has no end, at a rate that leaves the machine time for others.
func (a access) follow(ctx context.Context, t *testing.T, host string) *follower {
	t.Helper()
	resp, err := a.get(ctx, host, "/steady/2000000")
	if err != nil {
		t.Fatal(err)
	}
	return follow(resp.Body)
}

func follow(body io.ReadCloser) *follower {
	f := &follower{}
	go func() {
		defer body.Close()
		c := &service.Comparison{}
		b := make([]byte, 64<<10)
		for {
			n, err := body.Read(b)
			var wrong error
			if n > 0 {
				_, wrong = c.Write(b[:n])
			}
			f.mu.Lock()
			f.n += int64(n)
			if wrong != nil {
				f.err = wrong
			}
			f.mu.Unlock()
			if err != nil || wrong != nil {
				return
			}
		}
	}()
	return f
}

func (f *follower) received() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// fault is the difference found, if any.
func (f *follower) fault() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// wantProgress waits for n more bytes.
func (f *follower) wantProgress(t *testing.T, n int64, limit time.Duration) {
	t.Helper()
	from := f.received()
	for start := time.Now(); f.received() < from+n; time.Sleep(10 * time.Millisecond) {
		if err := f.fault(); err != nil {
			t.Fatal(err)
		}
		if time.Since(start) > limit {
			t.Fatalf("the TCP connection brought %d bytes in %v, want %d", f.received()-from, limit, n)
		}
	}
}
