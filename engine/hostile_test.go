package engine

import (
	"bytes"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/packet/packettest"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// between are addresses of packets from a to b, over IPv6 too, which b takes from a.
func between(t *testing.T, a, b *node) packettest.Addresses {
	t.Helper()
	w := packettest.Addresses{From4: a.ip, To4: b.ip, From6: netip.MustParseAddr("fd00:9::1"), To6: netip.MustParseAddr("fd00:9::2")}
	a.engine.routes.add(a.remote(b), []netip.Prefix{netip.PrefixFrom(w.To6, 128)})
	b.engine.routes.add(b.remote(a), []netip.Prefix{netip.PrefixFrom(w.From6, 128)})
	return w
}

// sealed is a datagram of s that holds inner, whatever that is.
func sealed(t *testing.T, s *session, inner []byte, flags wire.Flags) []byte {
	t.Helper()
	counter, err := s.sealer.Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	slot := make([]byte, len(inner)+wire.DataOverhead)
	copy(slot[wire.HeaderLen:], inner)
	s.sealer.Seal(slot, counter, flags, new(wire.Nonce))
	return slot
}

// TestHostileInnerPacketsOfAMemberAreDroppedAndCounted: a member seals what it likes. What has no IP header is dropped and counted,
// each; what is wrong behind that is the receiver's to judge, and goes on as it is; and the flag of a partial checksum
// changes nothing of that.
func TestHostileInnerPacketsOfAMemberAreDroppedAndCounted(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		where := between(t, a, b)
		ra, s := a.remote(b), a.sessionWith(b)
		seal := func(inner []byte, flags wire.Flags) { a.engine.send(*ra.path.Load(), sealed(t, s, inner, flags)) }
		for _, flags := range []wire.Flags{0, wire.FlagPartialChecksum} {
			for _, p := range where.Malformed() {
				inner := b.drops(DropInner)
				seal(p.Bytes, flags)
				b.wants()
				if n := b.drops(DropInner) - inner; n != 1 {
					t.Errorf("%s, flags %d: counted %d times", p.Name, flags, n)
				}
			}
			for _, p := range where.Odd() {
				inner := b.drops(DropInner)
				seal(p.Bytes, flags)
				synctest.Wait()
				got := b.dev.take()
				counted := b.drops(DropInner) - inner
				if len(got)+int(counted) != 1 {
					t.Errorf("%s, flags %d: delivered %d times, counted %d times", p.Name, flags, len(got), counted)
				}
				if len(got) == 1 && !bytes.Equal(got[0].Pieces[0], p.Bytes) {
					t.Errorf("%s, flags %d: delivered as %x", p.Name, flags, got[0].Pieces[0])
				}
			}
		}
		a.send(b, "unharmed")
		b.wants("unharmed")
		wantsOneSession(a, b)
	})
}

// TestInnerSourcesThatAreNotTheRemotesAreDroppedInEveryDress: another member's address, the receiver's own, the world's, a mapped form
// of the sender's, alone and in the middle of a run that coalesces.
func TestInnerSourcesThatAreNotTheRemotesAreDroppedInEveryDress(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		where := between(t, a, b)
		ra, s := a.remote(b), a.sessionWith(b)
		send := func(p []byte) { ra.sendInnerBy(s, *ra.path.Load(), p, data, time.Now()) }
		sources := []string{"10.9.0.77", b.ip.String(), "8.8.8.8", "0.0.0.0", "255.255.255.255", "127.0.0.1", "fd00:9::77", where.To6.String(), "::", "::1", "fe80::1"}
		for _, src := range sources {
			from := netip.MustParseAddr(src)
			to := where.To4
			if from.Is6() {
				to = where.To6
			}
			source, inner := b.drops(DropSource), b.drops(DropInner)
			send(udpPacket(from, to, "forged").Pieces[0])
			b.wants()
			if n := b.drops(DropSource) - source; n != 1 {
				t.Errorf("from %v: counted %d times as forged, %d as malformed", src, n, b.drops(DropInner)-inner)
			}
		}
		// Forged segments that continue the stream of an honest one in all but their source, in one message.
		var c packet.Cutter
		super := tcpSuper(a.ip, b.ip, 6, 1000)
		if err := c.Start(super, true); err != nil {
			t.Fatal(err)
		}
		source := b.drops(DropSource)
		honest := 0
		m := underlay.Message{Addr: b.addr, Seg: c.Size() + wire.DataOverhead}
		for i := range c.Segments() {
			one := make([]byte, c.Size())
			c.Next(one)
			if i%2 == 1 {
				copy(one[12:], netip.MustParseAddr("10.9.0.77").AsSlice())
			} else {
				honest += len(one) - 40
			}
			m.Buf = append(m.Buf, sealed(t, s, one, wire.FlagPartialChecksum)...)
		}
		if err := a.wire.Send([]underlay.Message{m}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got := 0
		for _, p := range b.dev.take() {
			got += len(p.Pieces[0]) - 40
			if src := netip.AddrFrom4([4]byte(p.Pieces[0][12:16])); src != a.ip {
				t.Errorf("delivered from %v", src)
			}
		}
		if n := b.drops(DropSource) - source; n != 3 || got != honest {
			t.Errorf("%d forged segments counted, want 3; %d bytes delivered, want %d", n, got, honest)
		}
	})
}

// TestHostilePacketsFromTheDeviceAreDroppedAndCounted: the same on the way out, with offloads that lie.
func TestHostilePacketsFromTheDeviceAreDroppedAndCounted(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		where := between(t, a, b)
		offloads := []packet.Offload{
			{}, {Checksum: packet.ChecksumPartial}, {Checksum: packet.ChecksumPartial, Transport: 20}, {Checksum: packet.ChecksumPartial, Transport: 65535},
			{Segment: 1}, {Segment: 1, Header: 40, Transport: 20}, {Segment: -1, Header: -1, Transport: -1}, {Segment: 1 << 40, Header: 60, Transport: 40},
		}
		for _, p := range where.Malformed() {
			for _, o := range offloads {
				outgoing := a.drops(DropOutgoing)
				a.dev.in <- &packet.Packet{Pieces: [][]byte{bytes.Clone(p.Bytes)}, Offload: o}
				if n := a.drops(DropOutgoing) - outgoing; n != 1 {
					t.Errorf("%s, %+v: counted %d times", p.Name, o, n)
				}
				b.wants()
			}
		}
		for _, p := range where.Odd() {
			for _, o := range offloads {
				a.dev.in <- &packet.Packet{Pieces: [][]byte{bytes.Clone(p.Bytes)}, Offload: o}
			}
			synctest.Wait()
			b.dev.take()
			a.dev.take()
		}
		a.send(b, "unharmed")
		b.wants("unharmed")
		wantsOneSession(a, b)
	})
}
