package relay

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// Members are known, but not all of them are well: these tests are about one that does what no engine does, and about those
// beside it, who must not notice.

// flood sends each of the datagrams that next makes, a batch at a time, and lets the relay deal with a batch before the next.
func (r *raw) flood(n int, next func(i int) []byte) {
	r.lab.t.Helper()
	for i := range n {
		r.send(next(i))
		if i%256 == 255 {
			synctest.Wait()
		}
	}
	synctest.Wait()
}

// control is a sealed control message.
func (r *raw) control(m wire.Control) []byte {
	r.lab.t.Helper()
	inner, err := m.Append(nil)
	if err != nil {
		r.lab.t.Fatal(err)
	}
	return r.seal(inner)
}

func TestControlMessagesWithoutEndAreNotServedWithoutEnd(t *testing.T) {
	for _, tt := range []struct {
		name string
		next func(r *raw, i int) []byte
	}{
		{"probes", func(r *raw, i int) []byte { return r.control(wire.Probe{Token: wire.Token{byte(i)}}) }},
		{"padded probes", func(r *raw, i int) []byte {
			b, err := wire.Probe{Token: wire.Token{byte(i)}}.Append(nil)
			if err != nil {
				r.lab.t.Fatal(err)
			}
			return r.seal(append(b, make([]byte, 1300)...))
		}},
		{"questions", func(r *raw, i int) []byte {
			return r.control(wire.Lookup{ID: wire.QuestionID(i), By: wire.ByName, Name: "modest"})
		}},
		{"circuits to one that is not there", func(r *raw, i int) []byte {
			return r.control(wire.OpenCircuit{ID: wire.QuestionID(i), Remote: wire.PublicKey{9, byte(i)}})
		}},
		{"garbage", func(r *raw, i int) []byte { return r.seal([]byte{0x0f, byte(i), 1, 2, 3}) }},
		{"messages that only a relay sends", func(r *raw, i int) []byte {
			return r.control(wire.CircuitOffered{Circuit: 1, Remote: wire.Member{Key: r.key.Public()}})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, l *lab) {
				const flood = 5000
				greedy, modest, late := l.member("greedy"), l.member("modest"), l.member("late")
				l.start()
				greedy.connect()
				modest.connect()
				about := wire.Lookup{By: wire.ByName, Name: "greedy"}
				greedy.takes(0)
				greedy.flood(flood, func(i int) []byte { return tt.next(greedy, i) })
				e := l.relay.Engine()
				if n := e.Dropped(engine.DropControlRate); n < flood-controls || n >= flood {
					t.Errorf("%d of %d are dropped for their rate", n, flood)
				}
				if n := len(greedy.takes(wire.KindData)); n > controls {
					t.Errorf("%d of %d are answered", n, flood)
				}
				// In the flood, and with no pause after it.
				for i := range 1000 {
					greedy.send(tt.next(greedy, i))
				}
				if s := modest.lookup(about).Status; s != wire.LookupFound {
					t.Errorf("another member's question: %v", s)
				}
				for i := range 1000 {
					greedy.send(tt.next(greedy, i))
				}
				if !late.connect() {
					t.Error("another member gets no session")
				}
				// It is a member still, and served again when it is quiet.
				advance(10 * time.Second)
				if s := greedy.lookup(about).Status; s != wire.LookupFound {
					t.Errorf("its own question afterwards: %v", s)
				}
			})
		})
	}
}

// controls is more than a relay serves of one member at once.
const controls = 1500

// A circuit that is opened and closed without end is refused at last: its other end is told of it no oftener than
// questions are answered, and nothing stays.
func TestACircuitThatFlapsIsBounded(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		flapper, victim := l.member("flapper"), l.member("victim")
		a, b, ida, idb := joined(t, l)
		flapper.connect()
		victim.connect()
		before := entries(l.relay)
		victim.told()
		const seconds, each = 20, 500
		for range seconds {
			for range each {
				r := flapper.open(victim.key.Public())
				if r.Status == wire.CircuitLimit {
					break
				}
				flapper.sendControl(wire.CloseCircuit{Circuit: r.Circuit})
			}
			a.send(circuitData(ida, "beside it"))
			b.wants(idb, "beside it")
			advance(time.Second)
		}
		if l.relay.Stats().Drops["question_limit"] == 0 {
			t.Error("none was refused")
		}
		// An offer and a close for each circuit.
		if n, most := len(victim.told()), 2*(questionsAtOnce+seconds*questionsPerSecond); n > most {
			t.Errorf("the other end was told %d times, want at most %d", n, most)
		}
		wantNoGrowth(t, l.relay, before)
	})
}

func TestAMemberCannotTouchWhatIsAnothers(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		thief := l.member("thief")
		a, b, ida, idb := joined(t, l)
		thief.connect()
		before := l.circuits()
		thief.sendControl(wire.CloseCircuit{Circuit: ida})
		thief.sendControl(wire.CloseCircuit{Circuit: idb})
		thief.send(circuitData(ida, "with another's circuit"))
		// An inner packet from another's address, to the relay, which is no peer, and to nobody.
		p := udpPacket(netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2"), "with another's address")
		thief.send(thief.seal(bytes.Join(p.Pieces, nil)))
		b.wants(idb)
		if n := l.circuits(); n != before {
			t.Errorf("%d circuits, %d before", n, before)
		}
		l.wantDrops("moved", 1)
		if n := l.relay.Engine().Dropped(engine.DropSource); n != 1 {
			t.Errorf("%d packets dropped for their source, want 1", n)
		}
		a.send(circuitData(ida, "still here"))
		b.wants(idb, "still here")
	})
}

// A member that starts anew ten times a second, as one does whose supervisor is in a hurry, costs what its budget of
// handshakes allows, and is a member again when it stays.
func TestAMemberThatRestartsTenTimesASecond(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		hasty := l.plan("hasty")
		a, b := l.plan("a"), l.plan("b")
		l.net.SetDefault(underlay.Link{Delay: hop})
		l.start()
		meet(a, b)
		before := entries(l.relay)
		for i := range 100 {
			hasty.stop()
			hasty.start()
			hasty.send(a, fmt.Sprint("in haste ", i))
			advance(100 * time.Millisecond)
			if i%10 == 9 {
				text := fmt.Sprint("beside it ", i)
				a.send(b, text)
				b.wantsWithin(4*hop, text)
			}
		}
		if n := l.relay.Engine().Dropped(engine.DropCooldown); n == 0 {
			t.Error("its handshakes had no limit")
		}
		a.dev.texts()
		hasty.send(a, "here to stay")
		took := a.wantsWithin(20*time.Second, "here to stay")
		t.Logf("reached after %v", took)
		advance(2 * wire.RejectAfter) // what is kept of sessions that are over is forgotten by then
		for where, n := range entries(l.relay) {
			if n > before[where]+4 { // its circuit, as two ends and one of each member's
				t.Errorf("%s has %d entries, %d before", where, n, before[where])
			}
		}
	})
}
