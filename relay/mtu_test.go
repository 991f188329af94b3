package relay

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// By a circuit the two ends measure the whole way, in each direction, with the relay's prefix.
func TestPathMTUOfACircuit(t *testing.T) {
	const hop = 10 * time.Millisecond
	for _, c := range []struct {
		name             string
		before, behind   int // what the relay's links to a and to b carry, in datagrams over IPv4; 0: all
		aToB, bToA       int
		beforeA, behindB int // what the links to the relay carry; 0: as those from it
	}{
		{name: "wide", aToB: 8900, bToA: 8900},
		{name: "1300 before the relay", before: 1272, aToB: 1252 - 44, bToA: 1252 - 44},
		{name: "1300 behind the relay", behind: 1272, aToB: 1252 - 44, bToA: 1252 - 44},
		{name: "1500 and 1300", before: 1472, behind: 1272, aToB: 1252 - 44, bToA: 1252 - 44},
		{name: "one direction only", behind: 1272, behindB: 9000, aToB: 1252 - 44, bToA: 8900},
	} {
		t.Run(c.name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, l *lab) {
				l.net.SetDefault(underlay.Link{Delay: hop})
				a, b := l.plan("a"), l.plan("b")
				a.mtu, b.mtu = 8900, 8900
				l.start()
				link := func(mtu int) underlay.Link { return underlay.Link{Delay: hop, MTU: mtu} }
				l.net.SetLink(l.addr, a.addr, link(c.before))
				l.net.SetLink(a.addr, l.addr, link(c.before))
				l.net.SetLink(l.addr, b.addr, link(c.behind))
				l.net.SetLink(b.addr, l.addr, link(max(c.behind, c.behindB)))
				meet(a, b)
				for range 5 {
					a.send(b, "small")
					advance(time.Second)
				}
				if ab, ba := a.status(b), b.status(a); ab.MTU != c.aToB || ba.MTU != c.bToA || ab.Via != "relay" {
					t.Errorf("by %q a found %d and b %d, want %d and %d", ab.Via, ab.MTU, ba.MTU, c.aToB, c.bToA)
				}
				// To the relay, which is no peer, no packets go, and no probes of what it carries.
				if r := a.engine.Remote(l.key.Public()).Status(); r.MTU != 0 || !r.Connected {
					t.Errorf("the relay: %+v", r)
				}
			})
		})
	}
}

// A circuit in place of a direct path is another path, measured anew: the prefix counts.
func TestPathMTUOfACircuitHasRoomForThePrefix(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		a.mtu, b.mtu = 1400, 1400
		l.start()
		var longest atomic.Int64
		l.net.SetTap(func(_, _ netip.AddrPort, d []byte) []byte {
			longest.Store(max(longest.Load(), int64(len(d))))
			return d
		})
		meet(a, b)
		advance(5 * time.Second)
		if n := a.status(b).MTU; n != 1400 {
			t.Errorf("found %d, want 1400", n)
		}
		if want := 1400 + wire.DataOverhead + wire.CircuitOverhead; longest.Load() != int64(want) {
			t.Errorf("the longest probe has %d bytes, want %d", longest.Load(), want)
		}
	})
}
