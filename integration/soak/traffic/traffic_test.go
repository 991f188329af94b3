package traffic

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/icmp"

	"github.com/adit-overlay/adit/integration/bench/load"
)

func TestPatternIsTheSameFromWhereverItIsRead(t *testing.T) {
	const p = Pattern(7)
	whole := make([]byte, 1000)
	p.Fill(whole, 0)
	for off := range 100 {
		for n := range 40 {
			b := make([]byte, n)
			p.Fill(b, int64(off))
			if string(b) != string(whole[off:off+n]) {
				t.Fatalf("%d bytes from %d are not those of the whole", n, off)
			}
			if err := p.Check(b, int64(off)); err != nil {
				t.Fatalf("%d bytes from %d: %v", n, off, err)
			}
		}
	}
}

func TestPatternNoticesWhatIsWrong(t *testing.T) {
	const p = Pattern(7)
	whole := make([]byte, 64<<10)
	p.Fill(whole, 0)
	for name, b := range map[string][]byte{
		"a bit":                    flip(slices.Clone(whole), 4711),
		"a byte missing":           slices.Delete(slices.Clone(whole), 4711, 4712),
		"a byte doubled":           slices.Insert(slices.Clone(whole), 4711, whole[4711]),
		"eight bytes missing":      slices.Delete(slices.Clone(whole), 4704, 4712),
		"a segment doubled":        slices.Insert(slices.Clone(whole), 1400, whole[:1400]...),
		"two segments changed":     append(append(slices.Clone(whole[:1400]), whole[2800:4200]...), whole[1400:2800]...),
		"another stream's segment": append(slices.Clone(whole[:1400]), otherwise(1400, 1400)...),
	} {
		if p.Check(b, 0) == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
}

func flip(b []byte, at int) []byte { b[at] ^= 1; return b }

func otherwise(off int64, n int) []byte {
	b := make([]byte, n)
	Pattern(8).Fill(b, off)
	return b
}

// town is a network in which all agents are on loopback, whatever ports they want.
type town struct {
	mu    sync.Mutex
	ports map[string]string // by network and address: where it is

	tamper func(net.Conn) net.Conn // with what one that dials TCP gets; nil: nothing
}

func (n *town) house(a netip.Addr) load.Network { return house{n, a} }

type house struct {
	*town
	addr netip.Addr
}

func (h house) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	h.mu.Lock()
	at := h.ports[network+address]
	h.mu.Unlock()
	c, err := new(net.Dialer).DialContext(ctx, network, at)
	if err == nil && h.tamper != nil && network == "tcp" {
		c = h.tamper(c)
	}
	return c, err
}

func (h house) Listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, "127.0.0.1:0")
	if err == nil {
		h.enter(network, address, l.Addr())
	}
	return l, err
}

func (h house) ListenPacket(network, address string) (net.PacketConn, error) {
	c, err := net.ListenPacket(network, "127.0.0.1:0")
	if err == nil {
		h.enter(network, address, c.LocalAddr())
	}
	return c, err
}

func (h house) enter(network, address string, at net.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ports[network+h.addr.String()+address] = at.String()
}

// newPair returns the flow of a kind from one agent to another.
func newPair(t *testing.T, kind string, tamper func(net.Conn) net.Conn) *flow {
	t.Helper()
	n := &town{ports: make(map[string]string), tamper: tamper}
	there := netip.MustParseAddr("10.9.0.3")
	web, err := NewAgent(Config{Name: "web", Network: n.house(there), Serves: true})
	if err != nil {
		t.Fatal(err)
	}
	web.rate.Store(100e6)
	a, err := NewAgent(Config{Name: "desk", Network: n.house(netip.MustParseAddr("10.9.0.2"))})
	if err != nil {
		t.Fatal(err)
	}
	pace := Pace{Stream: 100e6, Datagram: time.Millisecond}
	return &flow{agent: a, kind: kind, to: "web", addr: there, pace: pace, kick: make(chan struct{}, 1)}
}

// tampered is a connection that does something to what is received.
type tampered struct {
	*net.TCPConn
	received int
	when     int // so many bytes
	what     func(c *tampered, b []byte, n int) (int, error)
}

func (c *tampered) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	begin := c.received
	c.received += n
	if err == nil && begin <= c.when && c.when < c.received {
		return c.what(c, b, n)
	}
	return n, err
}

func at(bytes int, what func(c *tampered, b []byte, n int) (int, error)) func(net.Conn) net.Conn {
	return func(c net.Conn) net.Conn { return &tampered{c.(*net.TCPConn), 0, bytes, what} }
}

func TestStreamFindsWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name string
		what func(c *tampered, b []byte, n int) (int, error)
		want Wrong
	}{
		{"a bit is flipped", func(_ *tampered, b []byte, n int) (int, error) { b[n-1] ^= 1; return n, nil }, WrongBytes},
		{"a byte is lost", func(_ *tampered, b []byte, n int) (int, error) { return n - 1, nil }, WrongBytes},
		{"the connection is reset", func(c *tampered, _ []byte, _ int) (int, error) { c.SetLinger(0); c.Close(); return 0, net.ErrClosed }, Broken},
		{"the connection ends too soon", func(c *tampered, _ []byte, _ int) (int, error) { c.CloseRead(); return c.TCPConn.Read(nil) }, Broken},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newPair(t, Stream, at(100_000, c.what))
			f.stream(t.Context())
			found := f.agent.findings.after(0)
			if len(found) != 1 || found[0].What != c.want && !(c.want == Broken && found[0].What == WrongBytes) {
				t.Errorf("found %v, want %s", found, c.want)
			}
		})
	}
}

// What the serving end of a stream that is lost saw is not wrong by itself: it is what the dialler's finding is told with.
func TestServingEndWitnessesWhatIsLost(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := near.Write(append([]byte("\x04desk"), make([]byte, 8)...)); err != nil {
		t.Fatal(err)
	}
	go func() {
		io.ReadFull(near, make([]byte, 100)) // it is under way
		near.(*net.TCPConn).SetLinger(0)
		near.Close()
	}()
	web := &Agent{name: "web"}
	web.serveStream(far)
	found := web.findings.after(0)
	lost := Finding{What: Broken, From: "desk", To: "web", Flow: Stream + " IPv4", Began: began}
	if len(found) != 1 || found[0].What != Witnessed || !found[0].OfSameStream(lost) || !strings.Contains(found[0].Error, near.LocalAddr().String()) {
		t.Errorf("found %v", found)
	}
}

// How long streams stood still is the longest of all times, of one agent and of several.
func TestLongestStandstillIsKept(t *testing.T) {
	var a, b counters
	a.moved(10, time.Second)
	a.moved(20, 3*time.Second)
	a.moved(30, 2*time.Second)
	b.moved(40, time.Minute)
	if c := a.read(); c.StreamBytes != 60 || c.Stood != 3*time.Second {
		t.Errorf("%d bytes, stood for %v, want 60 and 3s", c.StreamBytes, c.Stood)
	}
	if both, back := a.read().Plus(b.read()), b.read().Plus(a.read()); both != back || both.StreamBytes != 100 || both.Stood != time.Minute {
		t.Errorf("both: %+v and %+v, want 100 bytes, stood for 1m", both, back)
	}
}

func TestStreamEndsInOrder(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := newPair(t, Stream, at(100_000, func(_ *tampered, _ []byte, n int) (int, error) { cancel(); return n, nil }))
	f.setMark(time.Now())
	f.stream(ctx)
	if found := f.agent.findings.after(0); len(found) > 0 {
		t.Errorf("found %v", found)
	}
	if n := f.agent.count.StreamBytes.Load(); n < 90_000 {
		t.Errorf("%d bytes were counted", n)
	}
	if f.resumption().Back.IsZero() {
		t.Error("the stream is not known to have moved")
	}
}

func TestRequestFindsWhatIsWrong(t *testing.T) {
	short := at(0, func(_ *tampered, b []byte, n int) (int, error) { return max(0, n-1), io.EOF })
	flipped := at(0, func(_ *tampered, b []byte, n int) (int, error) { return n, setFirst(b) })
	reset := at(0, func(c *tampered, _ []byte, _ int) (int, error) { c.Close(); return 0, net.ErrClosed })
	for _, c := range []struct {
		name   string
		tamper func(net.Conn) net.Conn
		calm   bool
		want   Wrong
	}{
		{"nothing", nil, true, ""},
		{"the last byte is lost", short, false, Broken},
		{"a byte is changed", flipped, false, WrongBytes},
		{"it fails in calm", reset, true, Refused},
		{"it fails while something is dealt", reset, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newPair(t, Request, c.tamper)
			f.agent.calm.set(c.calm)
			for range 3 {
				f.request()
			}
			found := f.agent.findings.after(0)
			if c.want == "" {
				if len(found) > 0 {
					t.Errorf("found %v", found)
				}
				return
			}
			if len(found) == 0 || found[0].What != c.want {
				t.Errorf("found %v, want %s", found, c.want)
			}
		})
	}
}

func setFirst(b []byte) error { b[0] ^= 1; return nil }

func TestDatagramsAreWhatWasSentAndOnce(t *testing.T) {
	f := newPair(t, Datagram, nil)
	s := &datagramSocket{flow: f, id: 5, sent: 10}
	sent := datagram("desk", 5, 3)
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"as it was sent", sent, ""},
		{"a second time", sent, "twice"},
		{"one that is to come", datagram("desk", 5, 10), "never sent"},
		{"another flow's", datagram("desk", 6, 4), "never sent"},
		{"another member's", datagram("lamp", 5, 4), "never sent"},
		{"with a bit flipped", flip(datagram("desk", 5, 4), 60), "not sent"},
		{"cut short", datagram("desk", 5, 4)[:40], "not sent"},
		{"next to nothing", []byte{4}, "1 bytes"},
		{"with bytes of another", append(datagram("desk", 5, 4), 0), "not sent"},
		{"overtaken", datagram("desk", 5, 2), ""},
	} {
		err := s.take(c.b)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestWindowIsAMap drives a window and a map with the same numbers.
func TestWindowIsAMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var w window
	seen := make(map[uint64]bool)
	var newest uint64
	for range 200_000 {
		n := newest + uint64(r.IntN(20)) - min(newest, uint64(r.IntN(windowSize+50)))
		if r.IntN(2000) == 0 {
			n += 3 * windowSize
		}
		got := w.note(n)
		newest = max(newest, n)
		want := isNew
		switch {
		case newest-n >= windowSize:
			want = isOld
		case seen[n]:
			want = isDouble
		}
		if got != want {
			t.Fatalf("%d, the newest being %d: %v, want %v", n, newest, got, want)
		}
		seen[n] = true
	}
}

func TestDatagramsLostInCalmAreCounted(t *testing.T) {
	f := newPair(t, Datagram, nil)
	s := &datagramSocket{flow: f, id: 5, sent: 3}
	s.calm[0], s.calm[1], s.calm[2] = true, false, true
	if err := s.take(datagram("desk", 5, 2)); err != nil {
		t.Fatal(err)
	}
	if lost := s.calmLost(); !slices.Equal(lost, []uint64{0}) {
		t.Errorf("%v were lost, want number 0 alone, sent in calm and not back", lost)
	}
}

func TestPingsAreAnsweredOnce(t *testing.T) {
	f := newPair(t, Ping, nil)
	s := &pingSocket{flow: f, id: 9, began: time.Unix(1, 0), waiting: map[int]time.Time{4: time.Now()}}
	for _, c := range []struct {
		name, want string
		e          *icmp.Echo
	}{
		{"an answer", "", &icmp.Echo{ID: 9, Seq: 4, Data: s.data(4)}},
		{"the same again", "twice", &icmp.Echo{ID: 9, Seq: 4, Data: s.data(4)}},
		{"other bytes", "other bytes", &icmp.Echo{ID: 9, Seq: 4, Data: s.data(5)}},
	} {
		err := s.take(c.e)
		if fmt.Sprint(err) != "<nil>" && c.want == "" || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
