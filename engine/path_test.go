package engine

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

func TestPathFollowsARemoteThatMoves(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		s := a.sessionWith(b)
		for i := range 5 {
			if err := b.wire.Rebind(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.99"), uint16(6000+i))); err != nil {
				t.Fatal(err)
			}
			b.send(a, "from elsewhere")
			a.wants("from elsewhere")
			a.send(b, "to elsewhere")
			b.wants("to elsewhere")
		}
		if a.sessionWith(b) != s {
			t.Error("moving cost the session")
		}
	})
}

// TestPathFollowsARemoteThatMovesBeforeItUsesTheNewSession: b answers a's handshake, hears no more of it, and moves. What it says under the
// session before is all that tells a where it is now; what a sends by the new one went to an address where nobody is.
func TestPathFollowsARemoteThatMovesBeforeItUsesTheNewSession(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		before := a.sessionWith(b)
		cut := true
		l.net.SetTap(func(from, _ netip.AddrPort, d []byte) []byte {
			if cut && from == a.addr && wire.KindOf(d) == wire.KindData {
				return nil
			}
			return d
		})
		a.renew(b)
		if s := a.sessionWith(b); s == before || b.sessionWith(a).peer != before.local {
			t.Fatalf("a has the session %v, as before, or b uses another than %v", s == before, before.local)
		}
		if err := b.wire.Rebind(netip.MustParseAddrPort("192.0.2.99:6000")); err != nil {
			t.Fatal(err)
		}
		cut = false
		b.send(a, "from elsewhere")
		a.wants("from elsewhere")
		a.send(b, "to elsewhere")
		b.wants("to elsewhere")
	})
}

// TestPathFollowsNoFormerSession: an attacker on the way keeps the last packet of a session until another is in use.
func TestPathFollowsNoFormerSession(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		before := a.sessionWith(b)
		kept := l.holdBack(b)
		b.send(a, "held back")
		a.wants()
		a.renew(b)
		b.send(a, "by the new session")
		a.wants("by the new session")
		if s := a.sessionWith(b); s == before || !s.heard.Load() {
			t.Fatal("no new session is in use")
		}
		l.net.Inject(attacker, a.addr, *kept)
		a.wants("held back") // it is authentic, and new
		if p := a.remote(b).path.Load(); p.addr != b.addr {
			t.Fatalf("the last packet of the session before moved the path to %v", p.addr)
		}
	})
}

func TestPathDoesNotFollowCopiesOrOlderPackets(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		// An attacker on the way delays a packet, and delivers it later from its own address.
		delayed := l.holdBack(b)
		b.send(a, "held back")
		b.send(a, "newer")
		a.wants("newer")
		l.net.Inject(attacker, a.addr, *delayed)
		a.wants("held back") // it is authentic, and new
		if p := a.remote(b).path.Load(); p.addr != b.addr {
			t.Fatalf("an older packet moved the path to %v", p.addr)
		}
	})
}

func TestRemoteThatFallsSilentIsProbedAndFoundAgain(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		l.net.Partition(a.addr, b.addr)
		for i := range 60 {
			a.send(b, fmt.Sprint(i))
			advance(time.Second)
		}
		b.dev.take()
		l.net.Heal(a.addr, b.addr)
		began := time.Now()
		for len(b.dev.take()) == 0 {
			a.send(b, "hello")
			advance(50 * time.Millisecond)
			if time.Since(began) > 2*time.Second {
				t.Fatal("no traffic 2 s after the partition healed")
			}
		}
	})
}

func TestKeepaliveWhenQuiet(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		advance(time.Minute)
		sent := a.wire.Stats().DatagramsSent + b.wire.Stats().DatagramsSent
		advance(4 * 60 * time.Second)
		// A probe and its answer each 25 s, from one side or the other.
		n := a.wire.Stats().DatagramsSent + b.wire.Stats().DatagramsSent - sent
		if n < 16 || n > 48 {
			t.Errorf("%d datagrams in four quiet minutes", n)
		}
		if a.remote(b).Status().RoundTripTime < 0 {
			t.Error("negative round trip time")
		}
	})
}

func TestOneWayTrafficCausesNoHandshakes(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		initiations := l.record(wire.KindInitiation)
		for i := range 200 {
			a.send(b, fmt.Sprint(i))
			advance(time.Second)
		}
		if got := len(b.dev.texts()); got != 200 {
			t.Errorf("%d of 200 packets arrived", got)
		}
		if n := len(initiations.take()); n != 0 {
			t.Errorf("%d handshakes for one-way traffic", n)
		}
	})
}

func TestHeldPacketsOfARemoteThatIsNotThereAreRefused(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.node("a"), l.plan("b")
		a.knows(b, at(b))
		for i := range maxHeldPackets + 50 {
			a.send(b, fmt.Sprint(i))
		}
		synctest.Wait()
		if n := a.drops(DropHeld); n != 50 {
			t.Errorf("%d of the oldest dropped, want 50", n)
		}
		advance(heldFor + time.Second)
		got := a.dev.texts()
		if len(got) != maxHeldPackets || got[0] != "protocol 1 type 3 code 1" {
			t.Errorf("%d told that the host is down: %.60q", len(got), got)
		}
	})
}

func TestPacketsToNobodyAreRefusedAtOnce(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a := l.node("a")
		a.dev.in <- udpPacket(a.ip, netip.MustParseAddr("10.9.0.200"), "x")
		a.wants("protocol 1 type 3 code 0")
		a.dev.in <- udpPacket(a.ip, netip.MustParseAddr("224.0.0.251"), "x")
		a.wants() // a group is nobody who could be told of
		if n := a.drops(DropNoRoute); n != 2 {
			t.Errorf("%d counted, want 2", n)
		}
	})
}

func TestLongestPrefixOwnsAnAddress(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, c := l.node("a"), l.node("b"), l.node("c")
		add := func(n *node, prefix string) {
			_, err := a.engine.AddRemote(RemoteConfig{PublicKey: n.key.Public(), Endpoint: at(n), AllowedIPs: []netip.Prefix{netip.MustParsePrefix(prefix)}})
			if err != nil {
				t.Fatal(err)
			}
			n.knows(a, "")
		}
		add(b, "10.9.0.0/16")
		add(c, "10.9.7.0/24")
		advance(time.Second)
		a.dev.in <- udpPacket(a.ip, netip.MustParseAddr("10.9.6.1"), "to b")
		a.dev.in <- udpPacket(a.ip, netip.MustParseAddr("10.9.7.1"), "to c")
		b.wants("to b")
		c.wants("to c")
		b.dev.in <- udpPacket(netip.MustParseAddr("10.9.7.1"), a.ip, "b as c")
		a.wants()
	})
}

// TestCarriersBetweenFixedEnds: two engines joined by a connection, and no addresses.
func TestCarriersBetweenFixedEnds(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.node("a"), l.node("b")
		l.net.Partition(a.addr, b.addr)
		a.knows(b, "")
		b.knows(a, "")
		x := link(a, b)
		advance(time.Second)
		a.send(b, "by the pipe")
		b.wants("by the pipe")
		x.Close()
		advance(time.Second)
		a.send(b, "waits for the next pipe")
		advance(time.Second)
		b.wants()
		link(a, b)
		advance(2 * time.Second)
		b.wants("waits for the next pipe")
		b.send(a, "back")
		a.wants("back")
	})
}

// link joins two nodes by a connection, and returns a's end.
func link(a, b *node) net.Conn {
	a.lab.t.Helper()
	x, y := net.Pipe()
	for n, c := range map[*node]net.Conn{a: x, b: y} {
		if err := n.engine.AddCarrier(underlay.NewStream(c, underlay.Config{})); err != nil {
			a.lab.t.Fatal(err)
		}
	}
	return x
}

// A keepalive that is due and cannot be sent is tried once a second: neither all the time nor never again.
func TestKeepaliveThatCannotBeSentWaits(t *testing.T) {
	for name, c := range map[string]struct {
		meet          func(l *lab) (a, b *node)
		lose, restore func(a, b *node)
	}{
		"the connection both met by has ended": {
			meet: func(l *lab) (a, b *node) {
				a, b = l.node("a"), l.node("b")
				l.net.Partition(a.addr, b.addr)
				a.knows(b, "")
				b.knows(a, "")
				link(a, b)
				return a, b
			},
			lose:    func(a, _ *node) { a.engine.Carriers()[1].Close() },
			restore: func(a, b *node) { link(a, b) },
		},
		"all counters are used, and handshakes lost": {
			meet: func(l *lab) (a, b *node) { return l.pair() },
			lose: func(a, b *node) {
				a.lab.net.Partition(a.addr, b.addr)
				sealer := a.sessionWith(b).sealer
				sealer.Reserve(wire.RejectAfterPackets - int(sealer.Reserved()))
			},
			restore: func(a, b *node) { a.lab.net.Heal(a.addr, b.addr) },
		},
	} {
		inFakeTime(t, func(t *testing.T, l *lab) {
			a, b := c.meet(l)
			advance(time.Second)
			a.send(b, "there is a session")
			b.wants("there is a session")
			c.lose(a, b)
			const away = 2 * defaultKeepalive
			before := a.drops(DropControlUnsent)
			advance(away)
			if n := a.drops(DropControlUnsent) - before; n == 0 || n > uint64(away/time.Second) {
				t.Errorf("%s: %d keepalives were not sent in %v", name, n, away)
			}
			c.restore(a, b)
			advance(5 * time.Second)
			a.send(b, "again")
			b.wants("again")
		})
	}
}

// TestSuperPacketsCrossWhole: what one device gives as a super-packet comes out of the other as one.
func TestSuperPacketsCrossWhole(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		super := tcpSuper(a.ip, b.ip, 40, 1348)
		want := append([]byte(nil), super.Pieces[0]...)
		a.dev.in <- super
		synctest.Wait()
		got := b.dev.take()
		if len(got) != 1 || got[0].Segment != 1348 || string(got[0].Pieces[0]) != string(want) {
			t.Fatalf("%d packets came out, the first %+v", len(got), got[0].Offload)
		}
		if st := b.engine.Stats(); st.Traffic.ReceivedPackets != 40 {
			t.Errorf("counted as %d packets, want 40", st.Traffic.ReceivedPackets)
		}
	})
}

// tcpSuper is a TCP super-packet of n full segments.
func tcpSuper(src, dst netip.Addr, n, size int) *packet.Packet {
	b := udpPacket(src, dst, string(make([]byte, packet.TCPHeaderLen-packet.UDPHeaderLen+n*size))).Pieces[0]
	b[9] = packet.ProtoTCP
	t := b[20:]
	clear(t[4:20])
	t[12], t[13] = 5<<4, 0x18
	for i := range t[20:] {
		t[20+i] = byte(i / 3)
	}
	binary.BigEndian.PutUint16(b[10:], ^checksum.Checksum(b[:20], 0))
	sum := checksum.Checksum(b[12:20], packet.ProtoTCP) // of the pseudo-header
	binary.BigEndian.PutUint16(t[16:], checksum.Combine(sum, uint16(len(t))))
	return &packet.Packet{Pieces: [][]byte{b}, Offload: packet.Offload{Checksum: packet.ChecksumPartial, Transport: 20, Header: 40, Segment: size}}
}

// A remote is made known before there is any carrier to reach it by. It is tried when there is one, not when
// the next try would be due.
func TestTheFirstCarrierIsTriedAtOnce(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		b := l.node("b")
		a := l.plan("a")
		e, err := New(Config{PrivateKey: a.key, Device: newDevice(), Random: a.random})
		if err != nil {
			t.Fatal(err)
		}
		a.engine = e
		e.Start()
		b.knows(a, "")
		a.knows(b, at(b))
		advance(firstRetry / 10) // it has been tried, in vain
		if a.wire, err = l.net.Attach(a.addr); err != nil {
			t.Fatal(err)
		}
		if err := e.AddCarrier(a.wire); err != nil {
			t.Fatal(err)
		}
		advance(firstRetry / 10)
		wantsOneSession(a, b)
	})
}

// Whoever makes routes for the underlay hears of an address in time, whether a remote comes from there, moves there, or is
// looked for there.
func TestAddressIsToldBeforeAnythingIsSentThere(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, c := l.node("a"), l.node("b"), l.node("c")
		var mu sync.Mutex
		told := make(map[netip.Addr]bool)
		a.engine.cfg.Reaching = func(to netip.Addr) {
			mu.Lock()
			defer mu.Unlock()
			told[to] = true
		}
		a.engine.cfg.LookupHost = func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{c.addr.Addr()}, nil
		}
		sent := 0
		l.net.SetTap(func(from, to netip.AddrPort, d []byte) []byte {
			mu.Lock()
			defer mu.Unlock()
			if from == a.addr {
				sent++
				if !told[to.Addr()] {
					t.Errorf("a sends to %v, of which nobody was told", to)
				}
			}
			return d
		})
		a.knows(b, "")
		b.knows(a, a.addr.String())
		b.send(a, "from where nobody looked")
		a.wants("from where nobody looked")
		if err := b.wire.Rebind(netip.MustParseAddrPort("192.0.2.99:5040")); err != nil {
			t.Fatal(err)
		}
		b.send(a, "from elsewhere")
		a.wants("from elsewhere")
		a.send(b, "to elsewhere")
		b.wants("to elsewhere")

		c.knows(a, "")
		a.knows(c, "c.example.com:5040")
		a.send(c, "by name")
		advance(3 * time.Second)
		c.wants("by name")
		if len(told) != 3 || sent < 3 {
			t.Errorf("%d datagrams to %d addresses", sent, len(told))
		}
	})
}
