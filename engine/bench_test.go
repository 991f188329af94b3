package engine

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// A straight is the way of packets of two engines without what is around it. It is the carrier of the one that seals, and has the
// other open what is sent at once, in the same goroutine. Its clock is the real one, its devices keep nothing.
type straight struct {
	underlay.Carrier // until the ends have a session, and for receiving
	out              *outbound
	sink             *sink

	mu sync.Mutex // the engine's own goroutines send too
	in *inbound
}

// sink is a device that only counts.
type sink struct {
	device
	packets, payload int
}

func (s *sink) Inlet() packet.Inlet { return &sinkInlet{sink: s} }

type sinkInlet struct {
	sink *sink
	buf  [packet.MaxLen]byte
}

func (in *sinkInlet) Lend(n int) []byte { return in.buf[:n] }

func (in *sinkInlet) Deliver(n int, o packet.Offload) error {
	in.sink.packets++
	in.sink.payload += n - o.Header
	return nil
}

func (s *straight) Send(ms []underlay.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in == nil {
		return s.Carrier.Send(ms)
	}
	for _, m := range ms {
		m.Addr = straightAddr(0)
		s.in.message(&m)
	}
	s.in.out.Flush()
	return nil
}

func newStraight(tb testing.TB) *straight {
	s := &straight{sink: &sink{device: *newDevice()}}
	net := underlay.NewMemory(underlay.MemoryConfig{})
	attach := func(i int) underlay.Carrier {
		n, err := net.Attach(straightAddr(i))
		if err != nil {
			tb.Fatal(err)
		}
		return n
	}
	s.Carrier = attach(0)
	to := attach(1)
	engines := [2]*Engine{}
	for i, with := range []struct {
		device  Device
		carrier underlay.Carrier
		remote  string
	}{{newDevice(), s, straightAddr(1).String()}, {s.sink, to, ""}} {
		e, err := New(Config{PrivateKey: straightKey(i), Device: with.device, Workers: 1})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { e.Close() })
		engines[i] = e
		if err := e.AddCarrier(with.carrier); err != nil {
			tb.Fatal(err)
		}
		if _, err := e.AddRemote(RemoteConfig{
			PublicKey: straightKey(1 - i).Public(), Endpoint: with.remote,
			AllowedIPs: []netip.Prefix{netip.PrefixFrom(straightIP(1-i), 32)},
		}); err != nil {
			tb.Fatal(err)
		}
	}
	engines[1].Start() // first, and so the first initiation finds it
	engines[0].Start()
	<-engines[0].Ready()
	<-engines[1].Ready()
	s.out = newOutbound(engines[0], messagesPerSend)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in = newInbound(engines[1], to, newTurnstile().newTurn(), false)
	s.in.now = time.Now()
	return s
}

func straightKey(i int) wire.PrivateKey { return wire.PrivateKey{byte(8 + 8*i), 31: 64} }
func straightIP(i int) netip.Addr       { return netip.AddrFrom4([4]byte{10, 9, 0, byte(1 + i)}) }
func straightAddr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)}), 5040)
}

// super returns a super-packet of n full segments from the first end to the second.
func (s *straight) super(n int) *packet.Packet {
	const headers, segment = packet.IPv4HeaderLen + packet.TCPHeaderLen, 1348
	b := make([]byte, headers+n*segment)
	b[0], b[8], b[9] = 0x45, 64, packet.ProtoTCP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	from, to := straightIP(0), straightIP(1)
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	b[packet.IPv4HeaderLen+12], b[packet.IPv4HeaderLen+13] = 5<<4, 0x10
	return &packet.Packet{Pieces: [][]byte{b}, Offload: packet.Offload{
		Checksum: packet.ChecksumPartial, Transport: packet.IPv4HeaderLen, Header: headers, Segment: segment,
	}}
}

// pass takes one packet all the way.
func (s *straight) pass(p *packet.Packet) {
	now := time.Now()
	s.mu.Lock()
	s.in.now = now
	s.mu.Unlock()
	s.out.route(p, now)
	s.out.flush()
	s.out.settle(now)
}

const straightSegments = 45

func TestWayOfPacketsDoesNotAllocate(t *testing.T) {
	s := newStraight(t)
	p := s.super(straightSegments)
	s.pass(p) // what is made once is made
	s.sink.packets, s.sink.payload = 0, 0
	const passes = 200
	perPass := testing.AllocsPerRun(passes, func() { s.pass(p) })
	if want := (passes + 1) * straightSegments * 1348; s.sink.payload != want || s.sink.packets != passes+1 {
		t.Fatalf("%d packets with %d bytes arrived, want %d with %d", s.sink.packets, s.sink.payload, passes+1, want)
	}
	// Timers and probes of the engines around it allocate now and then.
	if perPass >= 1 && !raceEnabled {
		t.Errorf("%v allocations for a super-packet of %d segments", perPass, straightSegments)
	}
}

// BenchmarkSealAndOpen is the whole way of packets, from the batch of one device to the inlet of another, without sockets.
func BenchmarkSealAndOpen(b *testing.B) {
	for _, n := range []int{1, straightSegments} {
		name := "single"
		if n > 1 {
			name = "super-packet"
		}
		b.Run(name, func(b *testing.B) {
			s := newStraight(b)
			p := s.super(n)
			b.ReportAllocs()
			b.SetBytes(int64(n * 1348))
			for b.Loop() {
				s.pass(p)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/segment")
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	e, _, s := fuzzed(b)
	for i := range 1000 {
		e.routes.add(s.remote, []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 8, byte(i >> 8), byte(i)}), 32)})
	}
	addr := netip.MustParseAddr("10.8.1.7")
	b.Run("route", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if e.routes.lookup(addr) == nil {
				b.Fatal("no route")
			}
		}
	})
	b.Run("session", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if e.indexes.session(s.local) != s {
				b.Fatal("no session")
			}
		}
	})
}
