package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// wide is two nodes with a session, whose devices have that MTU, on links that do that.
func (l *lab) wide(mtu int, link underlay.Link) (a, b *node) {
	l.t.Helper()
	l.net.SetDefault(link)
	a, b = l.plan("a"), l.plan("b")
	a.mtu, b.mtu = mtu, mtu
	l.meet(a, b)
	return a, b
}

// meet starts two nodes that know each other.
func (l *lab) meet(a, b *node) {
	l.t.Helper()
	a.start()
	b.start()
	a.knows(b, at(b))
	b.knows(a, at(a))
}

// mtuTo is the longest packet n has found to go to other whole, 0 while it has found none.
func (n *node) mtuTo(other *node) int { return n.remote(other).Status().MTU }

// wantsMTU fails unless n finds, within limit, that packets of mtu bytes go to other. Meanwhile n sends something
// small every second.
func (n *node) wantsMTU(other *node, mtu int, limit time.Duration) {
	n.lab.t.Helper()
	began := time.Now()
	for n.mtuTo(other) != mtu {
		if time.Since(began) >= limit {
			n.lab.t.Fatalf("%s found %d for %s in %v, want %d", n.name, n.mtuTo(other), other.name, limit, mtu)
		}
		if time.Since(began)%time.Second == 0 {
			n.send(other, "small")
		}
		advance(100 * time.Millisecond)
	}
}

// tcpPacket is a super-packet of size bytes of payload, or, with segment 0, a single packet.
func tcpPacket(src, dst netip.Addr, size, segment int) *packet.Packet {
	b := make([]byte, packet.IPv4HeaderLen+packet.TCPHeaderLen+size)
	b[0], b[6], b[8], b[9] = 0x45, 0x40, 64, packet.ProtoTCP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	t := b[packet.IPv4HeaderLen:]
	t[12], t[13] = 5<<4, 0x10
	p := &packet.Packet{Pieces: [][]byte{b}, Offload: packet.Offload{Checksum: packet.ChecksumPartial, Transport: packet.IPv4HeaderLen}}
	if segment > 0 {
		p.Header, p.Segment = packet.IPv4HeaderLen+packet.TCPHeaderLen, segment
	}
	return p
}

// payload is how many bytes of TCP payload came out of n's device since it was last asked.
func (n *node) payload() (bytes int) {
	for _, p := range n.dev.take() {
		if h, err := packet.Parse(p.Pieces[0]); err == nil && h.Proto == packet.ProtoTCP {
			bytes += p.Len() - h.Transport - packet.TCPHeaderLen
		}
	}
	return bytes
}

func TestPathMTUIsFound(t *testing.T) {
	for _, c := range []struct{ device, link, found int }{
		{1400, 0, 1400},
		{1400, 1472, 1400},           // 1500 over IPv4
		{1400, 1272, 1280 - 28 - 32}, // 1300
		{1400, 572, 576 - 28 - 32},
		{8900, 0, 8900},
		{8900, 8972, 8900}, // 9000
		{8900, 8931, 8192 - 28 - 32},
		{8900, 1472, 1472 - 32},
		{8900, 1471, 1492 - 28 - 32},
		{8900, 1272, 1280 - 28 - 32},
		{65000, 0, 65000},
		{65000, 20000, 16384 - 28 - 32},
		{576, 0, 576},
	} {
		t.Run(fmt.Sprintf("device %d, link %d", c.device, c.link), func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, l *lab) {
				a, b := l.wide(c.device, underlay.Link{MTU: c.link, Delay: 20 * time.Millisecond})
				advance(4 * time.Second) // nothing is sent, and yet the first connection finds it known
				if ab, ba := a.mtuTo(b), b.mtuTo(a); ab != c.found || ba != c.found {
					t.Errorf("found %d and %d, want %d", ab, ba, c.found)
				}
			})
		})
	}
}

// On an ordinary path one probe and its answer are all there is to pay, and an idle one costs nothing more.
func TestPathMTUCostsLittle(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		var long atomic.Int64
		l.net.SetTap(func(_, _ netip.AddrPort, d []byte) []byte {
			if len(d) > 1000 {
				long.Add(1)
			}
			return d
		})
		a, b := l.wide(1400, underlay.Link{MTU: 1472, Delay: 20 * time.Millisecond})
		advance(time.Minute)
		if n := long.Swap(0); n != 2 {
			t.Errorf("%d probes to measure a path from both ends, want 2", n)
		}
		advance(time.Hour)
		if n := long.Swap(0); n != 0 {
			t.Errorf("%d probes in an idle hour", n)
		}
		for range 100 {
			a.send(b, "small")
			advance(time.Second)
		}
		if n := long.Swap(0); n < 10 || n > 40 {
			t.Errorf("%d probes in 100 s of use, want one each 5 to 10 s from both ends", n)
		}
	})
}

// The worst that the probes of a path can be: a device that could use all there is, and nothing comes back.
func TestPathMTUProbesAreFew(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.wide(65000, underlay.Link{Delay: 20 * time.Millisecond})
		a.wantsMTU(b, 65000, 5*time.Second)
		var bytes atomic.Int64
		l.net.SetTap(func(from, _ netip.AddrPort, d []byte) []byte {
			if from == a.addr && len(d) > 500 {
				bytes.Add(int64(len(d)))
				return nil
			}
			return d
		})
		const seconds = 600
		for range seconds {
			a.send(b, "small")
			b.send(a, "small")
			advance(time.Second)
		}
		if n := bytes.Load() / seconds; n > 200_000 {
			t.Errorf("%d bytes a second of probes to a black hole", n)
		}
	})
}

// A path that carries less from one moment to the next, and says nothing: TCP must go on soon.
func TestPathMTUShrinksUnderTraffic(t *testing.T) {
	for _, answers := range []bool{false, true} {
		t.Run(fmt.Sprint("other packets come back: ", answers), func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, l *lab) {
				a, b := l.wide(8900, underlay.Link{Delay: 20 * time.Millisecond})
				a.wantsMTU(b, 8900, 5*time.Second)
				const size, segment = 40_000, 8860
				send := func() (arrived int) {
					a.dev.in <- tcpPacket(a.ip, b.ip, size, segment)
					if answers {
						b.send(a, "small")
					}
					advance(100 * time.Millisecond)
					return b.payload()
				}
				for range 20 {
					if n := send(); n != size {
						t.Fatalf("%d of %d bytes arrived by a path that carries 9000", n, size)
					}
				}
				l.net.SetDefault(underlay.Link{Delay: 20 * time.Millisecond, MTU: 1272})
				began := time.Now()
				for send() != size {
					if time.Since(began) > 14*time.Second {
						t.Fatal("TCP still loses what it sends")
					}
				}
				t.Logf("after %v all arrives again", time.Since(began))
				if n := a.mtuTo(b); n > 1272-32 {
					t.Errorf("found %d", n)
				}
			})
		})
	}
}

// And one that carries more is found out in time.
func TestPathMTUGrows(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.wide(8900, underlay.Link{Delay: 20 * time.Millisecond, MTU: 1272})
		a.wantsMTU(b, 1220, 5*time.Second)
		l.net.SetDefault(underlay.Link{Delay: 20 * time.Millisecond})
		a.wantsMTU(b, 8900, 62*time.Second)

		l.net.SetDefault(underlay.Link{Delay: 20 * time.Millisecond, MTU: 1272})
		a.wantsMTU(b, 1220, 15*time.Second)
		for range 3600 {
			a.send(b, "small")
			advance(time.Second)
		}
		l.net.SetDefault(underlay.Link{Delay: 20 * time.Millisecond})
		a.wantsMTU(b, 8900, 11*time.Minute)
	})
}

// Loss makes the search longer, and never has it find more than there is.
func TestPathMTUUnderLoss(t *testing.T) {
	for seed := range uint64(20) {
		inFakeTime(t, func(t *testing.T, l *lab) {
			l.seed = byte(seed)
			l.net = underlay.NewMemory(underlay.MemoryConfig{Seed: seed})
			a, b := l.wide(8900, underlay.Link{Delay: 20 * time.Millisecond, MTU: 8972, Loss: 0.3})
			a.wantsMTU(b, 8900, 5*time.Minute)
			l.net.SetDefault(underlay.Link{Delay: 20 * time.Millisecond, MTU: 1272, Loss: 0.3})
			a.wantsMTU(b, 1220, 5*time.Minute)
			for range 600 {
				a.send(b, "small")
				advance(time.Second)
				if n := a.mtuTo(b); n > 1220 {
					t.Fatalf("seed %d: found %d where 1220 is the most", seed, n)
				}
			}
		})
	}
}

// A remote that moves is measured anew, and until then nothing is believed of the new path.
func TestPathMTUAfterRoaming(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.wide(8900, underlay.Link{Delay: 20 * time.Millisecond})
		a.wantsMTU(b, 8900, 5*time.Second)
		moved := netip.MustParseAddrPort("192.0.2.99:6000")
		small := underlay.Link{Delay: 20 * time.Millisecond, MTU: 1272}
		l.net.SetLink(a.addr, moved, small)
		l.net.SetLink(moved, a.addr, small)
		if err := b.wire.Rebind(moved); err != nil {
			t.Fatal(err)
		}
		b.send(a, "from elsewhere")
		advance(30 * time.Millisecond)
		if n := a.mtuTo(b); n != 0 {
			t.Errorf("still %d on a path that was never tried", n)
		}
		if n := a.remote(b).mtu.bound(); n != baseDatagram-wire.DataOverhead {
			t.Errorf("packets of %d bytes are tried on it", n)
		}
		a.wantsMTU(b, 1220, 5*time.Second)
		b.wantsMTU(a, 1220, 15*time.Second) // it does not know that it has moved
	})
}

// A path that changes to and fro does not make probes without end.
func TestPathMTUWhilePathsAlternate(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.wide(65000, underlay.Link{Delay: time.Millisecond, MTU: 1272})
		advance(5 * time.Second)
		var probes atomic.Int64
		l.net.SetTap(func(from, _ netip.AddrPort, d []byte) []byte {
			if from == a.addr && len(d) > 500 {
				probes.Add(1)
			}
			return d
		})
		for i := range 1000 {
			b.wire.Rebind(netip.AddrPortFrom(b.addr.Addr(), uint16(6000+i%2)))
			b.send(a, "here")
			advance(10 * time.Millisecond)
		}
		if n := probes.Load(); n > 10*2*int64(len(probeLadder)) {
			t.Errorf("%d probes in ten seconds", n)
		}
	})
}

// refusing is a carrier whose first hop carries only so much, or that cannot tell.
type refusing struct {
	underlay.Carrier
	err  error
	over int
}

func (r refusing) Probe(m underlay.Message) error {
	if len(m.Buf) > r.over {
		return r.err
	}
	return r.Carrier.Probe(m)
}

// What the first hop refuses is not waited for.
func TestPathMTUOfTheFirstHop(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		l.net.SetDefault(underlay.Link{Delay: 20 * time.Millisecond, MTU: 1472})
		a, b := l.plan("a"), l.plan("b")
		a.mtu = 8900
		a.carrier = func(c underlay.Carrier) underlay.Carrier {
			return refusing{c, fmt.Errorf("too long: %w", underlay.ErrTooLong), 1472}
		}
		l.meet(a, b)
		advance(600 * time.Millisecond)
		if n := a.mtuTo(b); n != 1440 {
			t.Errorf("found %d, want 1440", n)
		}
	})
}

// Where nothing can be found out, nothing is concluded: packets go as they are.
func TestPathMTUWhereProbesAreNotSupported(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		a.mtu, b.mtu = 8900, 8900
		a.carrier = func(c underlay.Carrier) underlay.Carrier {
			return refusing{c, fmt.Errorf("probes: %w", errors.ErrUnsupported), 0}
		}
		l.meet(a, b)
		advance(time.Minute)
		if n := a.mtuTo(b); n != 0 {
			t.Errorf("found %d without probes", n)
		}
		lengths := l.lengths(a)
		a.dev.in <- tcpPacket(a.ip, b.ip, 40_000, 8860)
		advance(0)
		if got := lengths(); got != 8860+40+32 {
			t.Errorf("the longest datagram has %d bytes: the super-packet was cut smaller", got)
		}
	})
}

// lengths returns a function that tells the longest datagram n has sent since.
func (l *lab) lengths(n *node) func() int {
	var longest atomic.Int64
	l.net.SetTap(func(from, _ netip.AddrPort, d []byte) []byte {
		if from == n.addr {
			longest.Store(max(longest.Load(), int64(len(d))))
		}
		return d
	})
	return func() int { return int(longest.Load()) }
}

// Until a path is measured TCP is cut to what is assumed, and nobody is told anything.
func TestUnmeasuredPathCarriesTheDefault(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		a.mtu = 8900
		a.carrier = func(c underlay.Carrier) underlay.Carrier { return refusing{c, nil, 0} } // all probes are lost
		l.meet(a, b)
		advance(time.Second)
		lengths := l.lengths(a)
		for _, p := range []*packet.Packet{tcpPacket(a.ip, b.ip, 40_000, 8860), tcpPacket(a.ip, b.ip, 8860, 0)} {
			want := p.Len() - 40
			a.dev.in <- p
			advance(0)
			if got := b.payload(); got != want {
				t.Errorf("%d of %d bytes arrived", got, want)
			}
		}
		if got := lengths(); got != baseDatagram {
			t.Errorf("the longest datagram has %d bytes, want %d", got, baseDatagram)
		}
		if got := a.dev.take(); len(got) > 0 {
			t.Errorf("the device was given %d packets", len(got))
		}
	})
}

// A search that finds no answer at all, for something was in the way, is made again.
func TestPathMTUIsLookedForAgain(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		a.mtu = 8900
		lost := &losing{}
		lost.on.Store(true)
		a.carrier = func(c underlay.Carrier) underlay.Carrier { lost.Carrier = c; return lost }
		l.meet(a, b)
		for range 60 {
			a.send(b, "small")
			advance(time.Second)
		}
		if n := a.mtuTo(b); n != 0 {
			t.Fatalf("found %d without an answer", n)
		}
		lost.on.Store(false)
		a.wantsMTU(b, 8900, 10*time.Second)
	})
}

// losing is a carrier that loses probes while on.
type losing struct {
	underlay.Carrier
	on atomic.Bool
}

func (c *losing) Probe(m underlay.Message) error {
	if c.on.Load() {
		return nil
	}
	return c.Carrier.Probe(m)
}

// TCP is cut to what the path carries; everything else goes as it is. In both cases who sends is told, not too often.
func TestTooLongPacketsAreCutAndTheirSendersTold(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.wide(8900, underlay.Link{Delay: time.Millisecond, MTU: 1272})
		a.wantsMTU(b, 1220, 5*time.Second)
		b.dev.take()
		udp := udpPacket(a.ip, b.ip, strings.Repeat("x", 2000))
		forbid := udpPacket(a.ip, b.ip, strings.Repeat("x", 2000))
		forbid.Pieces[0][6] = 0x40
		for _, c := range []struct {
			name    string
			pkt     *packet.Packet
			arrives int // bytes of TCP
			told    bool
		}{
			{"super-packet", tcpPacket(a.ip, b.ip, 40_000, 8860), 40_000, true},
			{"single packet", tcpPacket(a.ip, b.ip, 5000, 0), 5000, true},
			{"UDP", udp, 0, false},
			{"UDP, not to be fragmented", forbid, 0, true},
		} {
			a.dev.take()
			a.dev.in <- c.pkt
			advance(200 * time.Millisecond)
			if got := b.payload(); got != c.arrives {
				t.Errorf("%s: %d bytes arrived, want %d", c.name, got, c.arrives)
			}
			told := a.dev.take()
			if (len(told) == 1) != c.told {
				t.Errorf("%s: %d messages to the sender, want that to be %v", c.name, len(told), c.told)
			}
			for _, p := range told {
				m := p.Pieces[0]
				if h, err := packet.Parse(m); err != nil || h.Proto != packet.ProtoICMP || h.Src != b.ip || h.Dst != a.ip ||
					m[20] != 3 || m[21] != 4 || binary.BigEndian.Uint16(m[26:]) != 1220 {
					t.Errorf("%s: told %x (%v)", c.name, m[:28], err)
				}
			}
		}
		for range 100 {
			a.dev.in <- tcpPacket(a.ip, b.ip, 5000, 0)
			advance(10 * time.Millisecond)
		}
		if n := len(a.dev.take()); n < 9 || n > 11 {
			t.Errorf("the sender was told %d times in a second, want ten times", n)
		}
	})
}

// synPacket is a SYN with a complete checksum and an MSS of n.
func synPacket(src, dst netip.Addr, n uint16) *packet.Packet {
	p := tcpPacket(src, dst, 4, 0)
	b := p.Pieces[0]
	t := b[packet.IPv4HeaderLen:]
	t[12], t[13] = 6<<4, 0x02
	t[20], t[21] = 2, 4
	binary.BigEndian.PutUint16(t[22:], n)
	h, err := packet.Parse(b)
	if err != nil {
		panic(err)
	}
	packet.Complete(b, &h)
	return &packet.Packet{Pieces: p.Pieces}
}

// The MSS is right in both directions though only one of the ends has measured.
func TestMSSIsWhatThePathCarries(t *testing.T) {
	for name, measures := range map[string]func(a, b *node){
		"both": func(a, b *node) { a.mtu, b.mtu = 8900, 8900 },
		"a":    func(a, b *node) { a.mtu = 8900 },
		"b":    func(a, b *node) { b.mtu = 8900 },
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, l *lab) {
				l.net.SetDefault(underlay.Link{Delay: time.Millisecond, MTU: 1272})
				a, b := l.plan("a"), l.plan("b")
				measures(a, b)
				l.meet(a, b)
				advance(5 * time.Second)
				for _, way := range [][2]*node{{a, b}, {b, a}} {
					from, to := way[0], way[1]
					for _, c := range []struct{ mss, want uint16 }{{8860, 1180}, {1180, 1180}, {536, 536}} {
						to.dev.take()
						from.dev.in <- synPacket(from.ip, to.ip, c.mss)
						advance(10 * time.Millisecond)
						got := to.dev.take()
						if len(got) != 1 {
							t.Fatalf("%d packets arrived", len(got))
						}
						p := got[0].Pieces[0]
						h, err := packet.Parse(p)
						if mss := binary.BigEndian.Uint16(p[42:]); err != nil || mss != c.want || !packet.Verify(p, &h) {
							t.Errorf("from %s: MSS %d arrives as %d, want %d (checksum right: %v)", from.name, c.mss, mss, c.want, packet.Verify(p, &h))
						}
					}
				}
			})
		})
	}
}

// What is asked at length is answered in short, and kept in short: no padding makes others send or remember more.
func TestPaddedProbesAreNoLever(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		var answered atomic.Int64
		l.net.SetTap(func(from, _ netip.AddrPort, d []byte) []byte {
			if from == b.addr {
				answered.Store(int64(len(d)))
			}
			return d
		})
		a.remote(b).Send(wire.Probe{Padding: 20_000})
		if n := b.drops(DropControl); n != 0 || answered.Load() == 0 || answered.Load() > 100 {
			t.Errorf("a probe of 20,000 bytes was answered by %d bytes, with %d drops", answered.Load(), n)
		}
		// A control message that is too long to be one is not even queued.
		r := a.remote(b)
		r.sendInnerBy(a.sessionWith(b), *r.path.Load(), append([]byte{0x10}, make([]byte, 20_000)...), quiet, time.Now())
		if n := b.drops(DropControl); n != 1 {
			t.Errorf("%d drops of a message of 20,000 bytes, want 1", n)
		}
	})
}
