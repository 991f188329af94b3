package engine

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// initiations are n that the owner of n's key may have made, one each step, the last at until.
func (n *node) initiations(to *node, many int, step time.Duration, until time.Time) (all [][]byte) {
	n.lab.t.Helper()
	local, err := wire.NewLocal(n.key)
	if err != nil {
		n.lab.t.Fatal(err)
	}
	for i := range many {
		made := until.Add(-step * time.Duration(many-1-i))
		_, msg, err := local.Initiate(n.random, to.key.Public(), wire.PresharedKey{}, wire.Index(i), made, nil)
		if err != nil {
			n.lab.t.Fatal(err)
		}
		all = append(all, msg)
	}
	return all
}

func TestHandshakesOfOneKeyAreBudgeted(t *testing.T) {
	const many = unprovenBurst // more would be asked for cookies
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.node("b")
		b.knows(a, "")
		answers, seen := l.record(wire.KindResponse), map[string]bool{}
		give := func(all [][]byte) (answered int) {
			for i, d := range all {
				// From ever new addresses: it is the key that counts.
				l.net.Inject(netip.AddrPortFrom(attacker.Addr(), uint16(1000+i)), b.addr, d)
				synctest.Wait()
			}
			for _, answer := range answers.take() {
				if !seen[string(answer)] { // the last is given twice, for nobody confirms it
					seen[string(answer)] = true
					answered++
				}
			}
			return answered
		}
		if n := give(a.initiations(b, many, time.Millisecond, time.Now())); n != wire.CooldownBurst {
			t.Errorf("%d of %d were answered, want %d", n, many, wire.CooldownBurst)
		}
		if n := b.drops(DropCooldown); n != many-wire.CooldownBurst {
			t.Errorf("%d counted, want %d", n, many-wire.CooldownBurst)
		}
		for range 5 {
			advance(wire.Cooldown)
			if n := give(a.initiations(b, 10, time.Millisecond, time.Now())); n != 1 {
				t.Errorf("%d were answered after %v, want 1", n, wire.Cooldown)
			}
		}
		advance(time.Hour)
		if n := give(a.initiations(b, many, time.Millisecond, time.Now())); n != wire.CooldownBurst {
			t.Errorf("%d were answered after an hour, want %d", n, wire.CooldownBurst)
		}
	})
}

// TestRecordingsDoNotLockTheirMakerOut: b has restarted, so all that a ever sent it is new to it, and somebody who kept it sends it
// again, one after the other, whenever b would take one more. a gets in at once.
func TestRecordingsDoNotLockTheirMakerOut(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		recordings := a.initiations(b, 200, 5*time.Minute, time.Now().Add(-5*time.Minute))
		b.start()
		b.knows(a, "")
		next := 0
		replay := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				refused := b.drops(DropCooldown)
				for next < len(recordings) {
					l.net.Inject(attacker, b.addr, recordings[next])
					if b.drops(DropCooldown) != refused {
						break // the same again, when there is budget
					}
					next++
				}
			}
		}
		replay(10 * time.Second)
		a.start()
		a.knows(b, at(b))
		replay(2 * time.Second)
		if next < wire.CooldownBurst {
			t.Fatalf("only %d recordings were taken", next)
		}
		wantsOneSession(a, b)
		a.send(b, "here I am")
		b.wants("here I am")
	})
}

// TestAFloodFromAVictimsAddressSpendsNothingOfIts: initiations under the victim's address, without a cookie and with a wrong one, by
// the thousand, fill all the places there are for those. Its own is asked for a cookie, and with that gets in.
func TestAFloodFromAVictimsAddressSpendsNothingOfIts(t *testing.T) {
	e, in, _ := fuzzed(t) // that nobody serves: the queue stays as full as it is
	net := in.carrier.(*underlay.Node)
	victim := netip.MustParseAddrPort("192.0.2.2:2")
	now := time.Now()
	initiation := func(key byte) (*wire.Cookie, []byte) {
		local, err := wire.NewLocal(wire.PrivateKey{key, 31: 0x40})
		if err != nil {
			t.Fatal(err)
		}
		_, msg, err := local.Initiate(nil, e.PublicKey(), wire.PresharedKey{}, 1, now, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := wire.NewCookie(e.PublicKey())
		c.Stamp(msg, now)
		return c, msg
	}
	arrives := func(msg []byte) {
		in.now = now
		in.message(&underlay.Message{Buf: msg, Seg: len(msg), Addr: victim})
		in.replies.flush(in.carrier)
	}
	_, plain := initiation(200)
	_, wrong := initiation(208)
	wrong[len(wrong)-1] = 1
	flood := func() {
		for range 1000 {
			arrives(plain)
			arrives(wrong)
			now = now.Add(2 * followingRefill) // what a faster flood does, TestCookieRepliesAreLimited says
		}
	}
	flood()
	if n := len(e.inbox.handshakes); n != underLoad {
		t.Fatalf("%d initiations without a cookie wait, want %d", n, underLoad)
	}
	cookie, first := initiation(16)
	sent := net.Stats().DatagramsSent
	arrives(first)
	if n := net.Stats().DatagramsSent - sent; n != 1 || len(e.inbox.handshakes) != underLoad {
		t.Fatalf("%d answers to the victim's initiation, and %d wait; want a cookie", n, len(e.inbox.handshakes))
	}
	reply, err := e.inbox.doorkeeper.jar.AppendReply(nil, nil, first, victim, now) // what went to the victim says the same
	if err != nil || cookie.Open(reply, now) != nil {
		t.Fatal("no cookie")
	}
	flood()
	for i := range wire.CooldownBurst {
		_, again := initiation(16)
		if !cookie.Stamp(again, now) {
			t.Fatal("the cookie was not stamped")
		}
		arrives(again)
		if n := len(e.inbox.handshakes); n != underLoad+i+1 {
			t.Fatalf("the victim's initiation %d was not taken; drops %v", i, e.Stats().Drops)
		}
	}
}
