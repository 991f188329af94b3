package relay

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// TestOneMemberDoesNotStarveTheOthers: one asks and sends as fast as it can, by the thousand at once, ten times its limit of bytes and
// more. Another is answered, gets a circuit, and what it sends arrives, all of it; and so does what one sends that uses half of
// its own limit.
func TestOneMemberDoesNotStarveTheOthers(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		const (
			perSecond = 128 << 10
			rounds    = 100 // longer than what a limit lends at once lasts
			round     = 50 * time.Millisecond
			gusts     = 30 // of a storm; there are two storms in a round

			// half of the limit, dealt out to the gusts
			half = perSecond / 2 * int(round/time.Millisecond) / 1000 / (2 * gusts)
		)
		l.cfg.Limits.BytesPerSecond = perSecond
		greedy, c, d := l.member("greedy"), l.member("c"), l.member("d")
		a, b := l.plan("a"), l.plan("b")
		l.start()
		for _, m := range l.raws {
			m.connect()
		}
		target := greedy.open(a.key.Public())
		if target.Status != wire.CircuitOK {
			t.Fatal(target.Status)
		}
		modest, _ := join(c, d)
		part := circuitData(modest, "")
		part = append(part, make([]byte, half-len(part))...)
		sent, arrived, flood := 0, 0, 0
		storm := func() {
			for range gusts {
				var m underlay.Message
				for range underlay.MaxSegments / 2 {
					greedy.asked++
					inner, _ := wire.Lookup{ID: greedy.asked, By: wire.ByName, Name: "somebody-or-other"}.Append(nil)
					question := greedy.seal(inner)
					forwarded := circuitData(target.Circuit, "")
					forwarded = append(forwarded, make([]byte, len(question)-len(forwarded))...)
					m.Seg = len(question)
					m.Buf = append(append(m.Buf, question...), forwarded...)
					flood += len(forwarded)
				}
				m.Addr = l.addr
				if err := greedy.wire.Send([]underlay.Message{m}); err != nil {
					t.Fatal(err)
				}
				c.send(part)
				sent++
			}
		}
		storm()
		a.send(b, "first")
		storm()
		if took := b.wantsWithin(3*time.Second, "first"); took > time.Second {
			t.Logf("the first packet took %v", took)
		}
		for i := range rounds {
			storm()
			a.send(b, fmt.Sprint(i))
			storm()
			advance(round)
			b.wants(fmt.Sprint(i))
			arrived += len(d.takes(wire.KindCircuit))
		}
		if arrived != sent {
			t.Errorf("%d of %d datagrams arrived from the one that keeps within its limit", arrived, sent)
		}
		if per := flood / rounds * int(time.Second/round); per < 10*perSecond {
			t.Errorf("the flood was %d bytes a second, want ten times the limit of %d", per, perSecond)
		}
		if s := l.relay.Stats(); s.Drops["limit"] == 0 {
			t.Errorf("nothing of the storm was beyond a limit: %v", s.Drops)
		}
	})
}

// TestAllMembersAreBackAfterTheRelayRestarts: none of them restarts, and every pair that talked talks again within seconds.
func TestAllMembersAreBackAfterTheRelayRestarts(t *testing.T) {
	const members = 12
	inFakeTime(t, func(t *testing.T, l *lab) {
		var all []*node
		for i := range members {
			all = append(all, l.plan(fmt.Sprint("m", i)))
		}
		l.net.SetDefault(underlay.Link{Delay: hop})
		l.start()
		for i, m := range all {
			meet(m, all[(i+1)%members])
		}
		for _, m := range all {
			m.dev.texts()
		}
		l.stopRelay()
		advance(2 * time.Second)
		l.startRelay()
		restarted := time.Now()
		back := make([]bool, members)
		for n := 0; n < members; {
			if time.Since(restarted) > 10*time.Second {
				t.Fatalf("%d of %d pairs are back after 10 s", n, members)
			}
			for i, m := range all {
				m.send(all[(i+1)%members], m.name)
			}
			advance(100 * time.Millisecond)
			for i, m := range all {
				if len(m.dev.texts()) > 0 && !back[i] {
					back[i] = true
					n++
				}
			}
		}
		t.Logf("all %d are back after %v", members, time.Since(restarted))
		synctest.Wait()
		if s := l.relay.Stats(); s.Online != members || s.Circuits != members {
			t.Errorf("%d members online with %d circuits, want %d and %d", s.Online, s.Circuits, members, members)
		}
	})
}
