package load

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/socks"
)

// loopback is a network on which the ports served are whichever are free.
type loopback struct {
	mu      sync.Mutex
	listens map[string]string // network and port asked for: address
}

func newLoopback(t *testing.T) *loopback {
	t.Helper()
	n := &loopback{listens: make(map[string]string)}
	if err := Serve(n); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *loopback) note(network, asked string, got net.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, port, _ := net.SplitHostPort(asked)
	n.listens[network+port] = got.String()
}

func (n *loopback) Listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, "127.0.0.1:0")
	if err == nil {
		n.note(network, address, l.Addr())
	}
	return l, err
}

func (n *loopback) ListenPacket(network, address string) (net.PacketConn, error) {
	c, err := net.ListenPacket(network, "127.0.0.1:0")
	if err == nil {
		n.note(network, address, c.LocalAddr())
	}
	return c, err
}

func (n *loopback) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	_, port, _ := net.SplitHostPort(address)
	to := n.listens[network+port]
	n.mu.Unlock()
	return new(net.Dialer).DialContext(ctx, network, to)
}

func (n *loopback) Close() error { return nil }

// short is how long each load runs here: nothing depends on how much passes in it.
const short = 20 * time.Millisecond

func TestStream(t *testing.T) {
	n := newLoopback(t)
	for _, down := range []bool{false, true} {
		for _, streams := range []int{1, 3} {
			r, err := Stream{Host: "127.0.0.1", Streams: streams, Duration: short, Down: down}.Run(t.Context(), n)
			if err != nil || r.Bytes == 0 || r.LongestGap <= 0 {
				t.Errorf("%d streams, down: %v: %+v, %v", streams, down, r, err)
			}
		}
	}
}

// TestTakeCounts: what comes in time is counted to the byte, the time being that from the first byte on, and a stream that
// ends early is an error.
func TestTakeCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close()
		const sent = 3*chunk + 17
		for _, late := range []time.Duration{0, time.Second} {
			go func() {
				time.Sleep(late)
				near.Write(make([]byte, sent))
			}()
			if n, gap, err := take(far, 200*time.Millisecond); n != sent || gap < late || err != nil {
				t.Errorf("%v late: took %d bytes, a gap of %v, %v, want %d bytes", late, n, gap, err, sent)
			}
		}
		if n, _, err := take(far, 200*time.Millisecond); n != 0 || !timedOut(err) {
			t.Errorf("of a stream without a byte: %d, %v, want a timeout", n, err)
		}
		go func() {
			near.Write([]byte{0})
			near.Close()
		}()
		if n, _, err := take(far, time.Minute); n != 1 || !errors.Is(err, io.EOF) {
			t.Errorf("of a stream that ended early: %d, %v, want a byte and EOF", n, err)
		}
	})
}

func TestEcho(t *testing.T) {
	n := newLoopback(t)
	for _, q := range []Echo{
		{Duration: short},
		{Duration: short, UDP: true},
		{Duration: short, Beside: &Stream{Host: "127.0.0.1", Streams: 1}},
	} {
		q.Host = "127.0.0.1"
		r, err := q.Run(t.Context(), n)
		if err != nil || r.Count == 0 || r.P50 <= 0 || r.P50 > r.P99 || r.P99 > r.Max {
			t.Errorf("%+v: %+v, %v", q, r, err)
		}
	}
}

// TestEchoOutlastsLoss: datagrams are sent until one has come back, also where the time is over by then.
func TestEchoOutlastsLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		go func() {
			b := make([]byte, echoLen)
			for i := 0; ; i++ {
				if _, err := io.ReadFull(far, b); err != nil {
					return
				}
				if i >= 2 {
					far.Write(b)
				}
			}
		}()
		n := dialled(func() (net.Conn, error) { return near, nil })
		r, err := Echo{UDP: true, Duration: short}.Run(t.Context(), n)
		if err != nil || r.Count != 1 || r.Lost != 2 {
			t.Errorf("%+v, %v, want two lost and one back", r, err)
		}
	})
}

// dialled is a network on which every dial ends in this.
type dialled func() (net.Conn, error)

func (d dialled) DialContext(context.Context, string, string) (net.Conn, error) { return d() }

func (dialled) Listen(string, string) (net.Listener, error) { return nil, errors.ErrUnsupported }

func (dialled) ListenPacket(string, string) (net.PacketConn, error) {
	return nil, errors.ErrUnsupported
}

func TestHTTP(t *testing.T) {
	n := newLoopback(t)
	for _, keep := range []bool{false, true} {
		r, err := HTTP{Host: "127.0.0.1", Clients: 4, Duration: short, KeepAlive: keep}.Run(t.Context(), n)
		if err != nil || r.Failed > 0 || r.Count < 4 || r.PerSecond <= 0 {
			t.Errorf("kept alive: %v: %+v, %v", keep, r, err)
		}
	}
	// Each client makes a request, also where the time is over before it is let run.
	if r, err := (HTTP{Host: "127.0.0.1", Clients: 4}).Run(t.Context(), n); err != nil || r.Failed > 0 || r.Count != 4 {
		t.Errorf("no time: %+v, %v, want a request of each client", r, err)
	}
}

func TestOpen(t *testing.T) {
	n := newLoopback(t)
	r, err := Open{Host: "127.0.0.1", Rate: 500, Duration: 2 * short}.Run(t.Context(), n)
	if err != nil || r.OK != 1 || r.Count != 20 {
		t.Errorf("%+v, %v, want 20 requests, all well", r, err)
	}
	// A request that fails counts, and its time does not.
	gone := &loopback{listens: map[string]string{"tcp7080": "127.0.0.1:1"}}
	r, err = Open{Host: "127.0.0.1", Rate: 500, Duration: short}.Run(t.Context(), gone)
	if err != nil || r.OK != 0 || r.Count != 0 || r.Why == "" {
		t.Errorf("nobody listens: %+v, %v, want none well and a reason", r, err)
	}
}

func TestFlood(t *testing.T) {
	n := newLoopback(t)
	r, err := Flood{Host: "127.0.0.1", Size: 64, Probe: short, Steps: 1}.Run(t.Context(), n)
	if err != nil || r.PerSecond <= 0 || r.Lost >= floodLoss {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestFloodFindsLowRates: where the first rate is too much already, lower ones are tried until one is not, or there are none.
func TestFloodFindsLowRates(t *testing.T) {
	n := newLoopback(t)
	for _, c := range []struct {
		most int // of a series that pass
		ok   bool
	}{{3, true}, {0, false}} {
		d := dialled(func() (net.Conn, error) {
			conn, err := n.DialContext(t.Context(), "udp", at("127.0.0.1", portUDP))
			return &narrow{Conn: conn, most: c.most}, err
		})
		r, err := Flood{Host: "127.0.0.1", Size: 64, Probe: short, Steps: 1}.Run(t.Context(), d)
		if (err == nil) != c.ok || (r.PerSecond > 0) != c.ok || r.Lost >= floodLoss {
			t.Errorf("%d of each series pass: %+v, %v", c.most, r, err)
		}
	}
}

// narrow lets so many datagrams of each series pass.
type narrow struct {
	net.Conn
	most, sent int
	series     string
}

func (c *narrow) Write(b []byte) (int, error) {
	if b[0] != udpCount {
		return c.Conn.Write(b)
	}
	if s := string(b[1:countLen]); s != c.series {
		c.series, c.sent = s, 0
	}
	if c.sent++; c.sent > c.most {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// TestFloodSeesLoss: a probe of which every tenth datagram is lost is not clean.
func TestFloodSeesLoss(t *testing.T) {
	n := newLoopback(t)
	c, err := n.DialContext(t.Context(), "udp", at("127.0.0.1", portUDP))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := prober{Flood: Flood{Size: 64, Probe: 2 * short}, conn: &lossy{Conn: c}}
	r, err := p.try(10000)
	if err != nil || r.clean() || r.Lost < 0.05 || r.Lost > 0.5 {
		t.Errorf("%+v, %v, want about a tenth lost", r, err)
	}
}

type lossy struct {
	net.Conn
	n int
}

func (c *lossy) Write(b []byte) (int, error) {
	if c.n++; b[0] == udpCount && c.n%10 == 0 {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func TestSocks(t *testing.T) {
	n := newLoopback(t)
	proxy := &socks.Server{Dial: n.DialContext}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go proxy.Serve(l)
	defer proxy.Close()
	s := Socks{Proxy: l.Addr().String()}
	for _, host := range []string{"127.0.0.1", "::1"} {
		if r, err := (Echo{Host: host, Duration: short}).Run(t.Context(), s); err != nil || r.Count == 0 {
			t.Errorf("to %s: %+v, %v", host, r, err)
		}
	}
	if _, err := s.DialContext(t.Context(), "tcp", "127.0.0.1:9"); err == nil || !strings.Contains(err.Error(), "reply") {
		t.Errorf("to a port nobody serves: %v, want the proxy's reply", err)
	}
}

// TestAgent runs a query by way of the socket, and one that fails.
func TestAgent(t *testing.T) {
	n := newLoopback(t)
	socket := filepath.Join(t.TempDir(), "agent")
	agent := Agent{net: n, join: func(context.Context, int) (Member, error) { return n, nil }}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- agent.serve(ctx, l) }()
	c, err := Control(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	var cold Latency
	if err := c.Run(t.Context(), Cold{Host: "127.0.0.1", Dials: 3}, &cold); err != nil || cold.Count != 3 {
		t.Errorf("cold dials: %+v, %v", cold, err)
	}
	var open OpenResult
	if err := c.Run(t.Context(), Open{Host: "127.0.0.1", Rate: 0, Duration: short}, &open); err == nil {
		t.Error("no requests a second: no error")
	}
	if err := c.Run(t.Context(), 17, nil); err == nil {
		t.Error("a query that is none: no error")
	}
	c.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the agent ended by %v", err)
	}
}

func TestLatency(t *testing.T) {
	var took []time.Duration
	for i := 100; i > 0; i-- {
		took = append(took, time.Duration(i))
	}
	if got, want := latencyOf(took), (Latency{Count: 100, P50: 51, P99: 100, Max: 100}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := latencyOf(nil); got != (Latency{}) {
		t.Errorf("of nothing: %+v", got)
	}
}
