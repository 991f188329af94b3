package netstack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// overlayEnd is a stack and the engine that carries for it, which takes it for its device. The engine lives in the fake
// time of its bubble; the stack's goroutines do not sleep as such a bubble asks it, so it lives outside, in a
// time of its own that step keeps together with the other.
type overlayEnd struct {
	s    *Stack
	wq   waiter.Queue
	ep   tcpip.Endpoint
	addr netip.AddrPort // on the underlay
	key  wire.PrivateKey

	in     chan *packet.Packet // for the engine
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	leaving []*packet.Packet // the stack's, copied
	arrived []overlayPacket  // the engine's
}

type overlayPacket struct {
	bytes []byte
	packet.Offload
}

func (e *overlayEnd) Read(b *packet.Batch) error {
	select {
	case <-e.closed:
		return net.ErrClosed
	case p := <-e.in:
		q := b.Add()
		q.Pieces = append(q.Pieces, p.Pieces...)
		q.Offload = p.Offload
		return nil
	}
}

func (e *overlayEnd) Inlet() packet.Inlet { return &overlayInlet{e: e} }
func (e *overlayEnd) Close() error        { e.once.Do(func() { close(e.closed) }); return nil }

type overlayInlet struct {
	e   *overlayEnd
	buf []byte
}

func (in *overlayInlet) Lend(n int) []byte { in.buf = make([]byte, n); return in.buf }

func (in *overlayInlet) Deliver(n int, o packet.Offload) error {
	in.e.mu.Lock()
	defer in.e.mu.Unlock()
	in.e.arrived = append(in.e.arrived, overlayPacket{in.buf[:n], o})
	return nil
}

// overlayPair are two stacks joined by engines over a network in memory.
type overlayPair struct {
	*eventClock
	t    *testing.T
	a, b *overlayEnd
}

// overLink has f run with a pair over such a link.
func overLink(t *testing.T, seed uint64, link underlay.Link, f func(p *overlayPair)) {
	t.Helper()
	p := &overlayPair{eventClock: &eventClock{}}
	p.a, p.b = p.end(t, addrA, 1), p.end(t, addrB, 2)
	synctest.Test(t, func(t *testing.T) {
		p.t = t
		network := underlay.NewMemory(underlay.MemoryConfig{Seed: seed, Link: link, Coalesce: true})
		for _, e := range []*overlayEnd{p.a, p.b} {
			e.in, e.closed = make(chan *packet.Packet, 4096), make(chan struct{})
			other := p.a
			if e == p.a {
				other = p.b
			}
			g, err := engine.New(engine.Config{PrivateKey: e.key, Device: e, Addresses: []netip.Prefix{own(e.s)}})
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			if _, err := g.AddRemote(engine.RemoteConfig{
				PublicKey: other.key.Public(), Endpoint: other.addr.String(), AllowedIPs: []netip.Prefix{own(other.s)},
			}); err != nil {
				t.Fatal(err)
			}
			c, err := network.Attach(e.addr)
			if err != nil {
				t.Fatal(err)
			}
			if err := g.AddCarrier(c); err != nil {
				t.Fatal(err)
			}
			g.Start()
		}
		f(p)
		p.a.ep.Abort()
		p.b.ep.Abort()
	})
}

// own is a stack's only address.
func own(s *Stack) netip.Prefix {
	for a := range s.own {
		return netip.PrefixFrom(a, a.BitLen())
	}
	return netip.Prefix{}
}

func (p *overlayPair) end(t *testing.T, address string, i byte) *overlayEnd {
	t.Helper()
	e := &overlayEnd{
		addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, i}), 5040),
		key:  wire.PrivateKey{0: 8 * i, 31: 0x40},
	}
	ip := netip.MustParseAddr(address)
	cfg, err := Config{Addresses: []netip.Prefix{netip.PrefixFrom(ip, 24)}, clock: p.eventClock}.resolve()
	if err != nil {
		t.Fatal(err)
	}
	stack, err := newIPStack(cfg, []netip.Addr{ip}, e.leave)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stack.close)
	e.s = &Stack{ip: stack, own: map[netip.Addr]struct{}{ip: {}}}
	return e
}

// leave takes a packet of the stack, whose memory it does not keep.
func (e *overlayEnd) leave(pkt *stack.PacketBuffer) bool {
	var p packet.Packet
	describe(&p, pkt)
	p.Pieces = [][]byte{bytes.Join(p.Pieces, nil)}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leaving = append(e.leaving, &p)
	return true
}

// step lets a moment pass for engines and stacks.
func (p *overlayPair) step(d time.Duration) {
	p.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	for until := p.elapsed() + d; ; {
		do := p.next(until)
		if do == nil {
			break
		}
		do()
		p.settle()
	}
	for _, e := range []*overlayEnd{p.a, p.b} {
		in := e.s.Inlet()
		for _, pkt := range takeAll(&e.mu, &e.arrived) {
			copy(in.Lend(len(pkt.bytes)), pkt.bytes)
			if err := in.Deliver(len(pkt.bytes), pkt.Offload); err != nil {
				p.t.Fatal(err)
			}
			p.settle()
		}
	}
	for _, e := range []*overlayEnd{p.a, p.b} {
		for _, pkt := range takeAll(&e.mu, &e.leaving) {
			e.in <- pkt
		}
	}
}

// takeAll returns what is in list, and leaves it empty.
func takeAll[T any](mu *sync.Mutex, list *[]T) []T {
	mu.Lock()
	defer mu.Unlock()
	all := *list
	*list = nil
	return all
}

func (p *overlayPair) settle() {
	for _, e := range []*overlayEnd{p.a, p.b} {
		e.s.ip.g.Pause()
		e.s.ip.g.Resume()
	}
}

// connect makes a TCP connection from a to b.
func (p *overlayPair) connect(limit time.Duration) {
	p.t.Helper()
	check := func(err tcpip.Error) {
		p.t.Helper()
		if _, started := err.(*tcpip.ErrConnectStarted); err != nil && !started {
			p.t.Fatal(err)
		}
	}
	const port = 80
	var wq waiter.Queue
	l, err := p.b.s.ip.g.NewEndpoint(tcp.ProtocolNumber, header.IPv4ProtocolNumber, &wq)
	check(err)
	defer l.Close()
	check(l.Bind(tcpip.FullAddress{Port: port}))
	check(l.Listen(backlog))
	p.a.ep, err = p.a.s.ip.g.NewEndpoint(tcp.ProtocolNumber, header.IPv4ProtocolNumber, &p.a.wq)
	check(err)
	check(p.a.ep.Connect(tcpip.FullAddress{Addr: addressOf(netip.MustParseAddr(addrB)), Port: port}))
	for began := p.elapsed(); p.b.ep == nil; p.step(time.Millisecond) {
		if ep, _, err := l.Accept(nil); err == nil {
			p.b.ep = ep
		}
		if p.elapsed()-began > limit {
			p.t.Fatalf("no connection after %v", limit)
		}
	}
}

// transfer sends data from a to b, and returns how long it took and the longest time without anything.
func (p *overlayPair) transfer(data []byte, limit time.Duration) (took, gap time.Duration) {
	p.t.Helper()
	began := p.elapsed()
	last := began
	written, read := 0, 0
	buf := make([]byte, 64<<10)
	for read < len(data) {
		if written < len(data) {
			n, err := p.a.ep.Write(bytes.NewReader(data[written:]), tcpip.WriteOptions{})
			if _, full := err.(*tcpip.ErrWouldBlock); err != nil && !full {
				p.t.Fatalf("after %d bytes: %v", written, err)
			}
			written += int(n)
		}
		into := tcpip.SliceWriter(buf)
		r, err := p.b.ep.Read(&into, tcpip.ReadOptions{})
		if _, empty := err.(*tcpip.ErrWouldBlock); err != nil && !empty {
			p.t.Fatalf("after %d bytes: %v", read, err)
		}
		if err == nil {
			if !bytes.Equal(buf[:r.Count], data[read:][:r.Count]) {
				p.t.Fatalf("a byte from %d on is not what was sent", read)
			}
			read += r.Count
			gap = max(gap, p.elapsed()-last)
			last = p.elapsed()
			continue
		}
		p.step(time.Millisecond)
		if p.elapsed()-began > limit {
			p.t.Fatalf("%d of %d bytes after %v, the last %v ago", read, len(data), limit, p.elapsed()-last)
		}
	}
	return p.elapsed() - began, gap
}

// A stream inside the overlay gets on, and every byte of it is right, whatever the line does to datagrams. How fast
// is TCP's matter: of 30 % of segments lost it can make little, and waits long for each that is lost again.
func TestStreamInTheOverlayGetsOnOverABadLine(t *testing.T) {
	for _, test := range []struct {
		name  string
		link  underlay.Link
		size  int
		limit time.Duration
	}{
		{"30 % loss", underlay.Link{Loss: 0.3}, 24 << 10, 15 * time.Minute},
		{"5 % loss in rows of four", underlay.Link{Burst: underlay.Burst{Begin: 0.0132, End: 0.25}}, 256 << 10, time.Minute},
		{"half doubled, half out of order", underlay.Link{Duplicate: 0.5, Reorder: 0.5, ReorderDelay: 10 * time.Millisecond}, 256 << 10, time.Minute},
		{"all at once", underlay.Link{Loss: 0.05, Duplicate: 0.2, Corrupt: 0.02, Jitter: 10 * time.Millisecond}, 64 << 10, time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			for seed := range uint64(3) {
				t.Run(fmt.Sprint(seed), func(t *testing.T) {
					data := make([]byte, test.size)
					r := rand.NewChaCha8([32]byte{byte(seed)})
					r.Read(data)
					link := test.link
					link.Delay = 10 * time.Millisecond
					overLink(t, seed, link, func(p *overlayPair) {
						p.connect(time.Minute)
						took, gap := p.transfer(data, test.limit)
						t.Logf("%d KB in %v, nothing for %v at the longest", test.size>>10, took, gap)
					})
				})
			}
		})
	}
}
