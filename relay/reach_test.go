package relay

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/underlay"
)

func TestMembersThatKnowOnlyTheRelayReachEachOther(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		l.start()
		a.send(b, "hello")
		b.wants("hello")
		b.send(a, "good day")
		a.wants("good day")
		b.send6(a, "and by IPv6")
		a.wants("and by IPv6")
		a.send6(b, "likewise")
		b.wants("likewise")
		wantsOneSession(a, b)
		if n := l.circuits(); n != 1 {
			t.Errorf("%d circuits, want 1", n)
		}
	})
}

func TestAllReachAllAtOnce(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		const members = 6
		l.net.SetDefault(underlay.Link{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond})
		for i := range members {
			l.plan(fmt.Sprint("m", i))
		}
		l.start()
		for _, from := range l.nodes {
			for _, to := range l.nodes {
				if from != to {
					from.send(to, from.name+" to "+to.name)
				}
			}
		}
		advance(4 * time.Second)
		for _, to := range l.nodes {
			got := make(map[string]int)
			for _, s := range to.dev.texts() {
				got[s]++
			}
			for _, from := range l.nodes {
				if from != to && got[from.name+" to "+to.name] != 1 {
					t.Errorf("%s heard %s %d times", to.name, from.name, got[from.name+" to "+to.name])
				}
			}
		}
		if n := l.circuits(); n != members*(members-1)/2 {
			t.Errorf("%d circuits, want one for each two members", n)
		}
	})
}

func TestTheRelaySeesNoPlaintext(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		tap := l.tap()
		l.start()
		a.send(b, "attack at dawn")
		b.wants("attack at dawn")
		b.send(a, "understood, at dawn")
		a.wants("understood, at dawn")
		if tap.saw("at dawn") {
			t.Error("a datagram held the plain text")
		}
		if got := l.relay.Engine().Stats().Traffic.ReceivedPackets; got != 0 {
			t.Errorf("the relay opened %d packets", got)
		}
		// The sessions at the ends are not those with the relay.
		made := wantsOneSession(a, b)
		for _, n := range []*node{a, b} {
			r := l.relay.Engine().Remote(n.key.Public()).Status()
			if !r.Connected || !r.Since.Before(made) {
				t.Errorf("the relay's session with %s is of %v, the members' of %v", n.name, r.Since, made)
			}
		}
	})
}

func TestSeveralMembersBehindOneAddress(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, c := l.plan("a"), l.plan("b"), l.plan("c")
		b.addr = netip.AddrPortFrom(a.addr.Addr(), 1024)
		c.addr = netip.AddrPortFrom(a.addr.Addr(), 1025)
		l.start()
		for _, from := range l.nodes {
			for _, to := range l.nodes {
				if from != to {
					from.send(to, from.name)
					to.wants(from.name)
				}
			}
		}
	})
}

func TestARelayIsAPeerToo(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a := l.plan("a")
		dev := newDevice()
		ip := netip.MustParseAddr("10.9.0.200")
		l.cfg.Name = "hub"
		l.cfg.Engine.Device = dev
		l.cfg.Engine.Addresses = []netip.Prefix{netip.PrefixFrom(ip, 24)}
		l.start()
		a.send(&node{ip: ip}, "to the relay")
		synctest.Wait()
		if got := dev.texts(); len(got) != 1 || got[0] != "to the relay" {
			t.Fatalf("the relay received %q", got)
		}
		dev.in <- udpPacket(ip, a.ip, "from the relay")
		a.wants("from the relay")
		addrs, err := a.engine.LookupName(t.Context(), "hub")
		if err != nil || len(addrs) != 1 || addrs[0] != ip {
			t.Errorf("the directory says that hub is at %v, %v", addrs, err)
		}
		if n := l.circuits(); n != 0 {
			t.Errorf("%d circuits for what goes to the relay itself", n)
		}
	})
}

func TestAMemberThatIsOfflineIsReportedDownAtOnce(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, off := l.plan("a"), l.plan("off")
		off.absent = true
		l.start()
		a.send(off, "hello?")
		advance(500 * time.Millisecond)
		a.wants("ICMP")
		off.start()
		advance(time.Second)
		a.send(off, "hello")
		off.wantsWithin(3*time.Second, "hello")
	})
}

// A cold start costs a question to the directory, one for a circuit, the handshake and the way there.
func TestTheFirstPacketArrivesAfterTheHandshake(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		const hop = 20 * time.Millisecond
		a, b := l.plan("a"), l.plan("b")
		l.net.SetDefault(underlay.Link{Delay: hop})
		l.start()
		a.send(b, "hello")
		took := b.wantsWithin(time.Second, "hello")
		if limit := (2 + 2 + 4 + 2) * hop; took > limit+hop/2 {
			t.Errorf("the first packet took %v, want %v", took, limit)
		}
	})
}
