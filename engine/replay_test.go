package engine

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// TestRecordedInitiationsOfEverySessionChangeNothing: all that ever began a session, sent again from elsewhere, while the session is
// new, old or renewed, moves neither session nor path, wakes no handshake and is not answered.
func TestRecordedInitiationsOfEverySessionChangeNothing(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		a.rekey, b.rekey = 10*time.Second, 10*time.Second
		initiations := l.record(wire.KindInitiation)
		a.start()
		b.start()
		a.knows(b, at(b))
		b.knows(a, "")
		advance(time.Second)
		var all [][]byte
		for range 5 {
			all = append(all, initiations.take()...)
			before, path, previous := b.sessionWith(a), *b.remote(a).path.Load(), b.remote(a).keys.previous
			refused, sent := b.drops(DropReplayedHandshake), b.wire.Stats().DatagramsSent
			for _, d := range all {
				l.net.Inject(attacker, b.addr, d)
			}
			synctest.Wait()
			r := b.remote(a)
			if b.sessionWith(a) != before || *r.path.Load() != path || r.keys.previous != previous || r.keys.next != nil || r.hs.active {
				t.Fatal("a recorded initiation has changed session, keys, path or handshake")
			}
			if n := b.drops(DropReplayedHandshake) - refused; n != uint64(len(all)) {
				t.Errorf("%d of %d recorded initiations were counted", n, len(all))
			}
			if n := b.wire.Stats().DatagramsSent - sent; n != 0 {
				t.Errorf("recorded initiations were answered %d times", n)
			}
			a.send(b, "still here")
			b.wants("still here")
			advance(11 * time.Second)
		}
		if len(all) < 5 {
			t.Errorf("only %d initiations were recorded", len(all))
		}
	})
}

// TestEveryCopyOfOldCiphertextIsDroppedAndCountedWhateverItsKey: what was ever sent is sent again, many times, from the sender's
// address and others, in and out of order, while its key is the current one, a previous one and no more.
func TestEveryCopyOfOldCiphertextIsDroppedAndCountedWhateverItsKey(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		a.rekey, b.rekey = 10*time.Second, 10*time.Second
		a.start()
		b.start()
		recorded := l.record(wire.KindData)
		a.knows(b, at(b))
		b.knows(a, "")
		advance(time.Second)
		order := rand.New(rand.NewPCG(7, 7))
		var toB [][]byte
		current, previous, gone := 0, 0, 0
		for round := range 12 {
			for i := range 5 {
				a.send(b, fmt.Sprint(round, i))
			}
			synctest.Wait()
			if got := len(b.dev.texts()); got != 5 {
				t.Fatalf("round %d: %d of 5 packets arrived", round, got)
			}
			for _, d := range recorded.take() {
				if h, _ := wire.ParseData(d); b.engine.indexes.session(h.Receiver) != nil {
					toB = append(toB, d)
				}
			}
			replayed, expired, unknown := b.drops(DropReplay), b.drops(DropExpired), b.drops(DropUnknownIndex)
			var wantReplayed, wantExpired, wantUnknown uint64
			order.Shuffle(len(toB), func(i, j int) { toB[i], toB[j] = toB[j], toB[i] })
			for _, d := range toB {
				for _, from := range []netip.AddrPort{a.addr, attacker, a.addr} {
					l.net.Inject(from, b.addr, d)
				}
				h, _ := wire.ParseData(d)
				switch s := b.engine.indexes.session(h.Receiver); {
				case s == nil:
					gone++
					wantUnknown += 3
				case time.Since(s.established) >= b.engine.rejectAfter():
					wantExpired += 3
				case s == b.sessionWith(a):
					current++
					wantReplayed += 3
				default:
					previous++
					wantReplayed += 3
				}
			}
			synctest.Wait()
			if got := b.dev.texts(); len(got) != 0 {
				t.Fatalf("round %d: delivered again: %q", round, got)
			}
			counted := [3]uint64{b.drops(DropReplay) - replayed, b.drops(DropExpired) - expired, b.drops(DropUnknownIndex) - unknown}
			if want := [3]uint64{wantReplayed, wantExpired, wantUnknown}; counted != want {
				t.Fatalf("round %d: counted as replays, of expired and of forgotten keys: %d, want %d", round, counted, want)
			}
			if p := b.remote(a).path.Load(); p.addr != a.addr {
				t.Fatalf("round %d: a replay moved the path to %v", round, p.addr)
			}
			recorded.take() // what b said to it
			advance(11 * time.Second)
		}
		if current == 0 || previous == 0 || gone == 0 {
			t.Errorf("%d copies under the current key, %d under a previous, %d under one that is no more: want some of each", current, previous, gone)
		}
	})
}

// TestWindowRacedByReadersAcceptsOnce: many readers ask for the same counters at the same time, each in another order.
func TestWindowRacedByReadersAcceptsOnce(t *testing.T) {
	const readers, counters, ahead = 8, 40_000, 64
	s := new(session)
	var accepted [counters]atomic.Int32
	var wg sync.WaitGroup
	for g := range readers {
		wg.Go(func() {
			order := rand.New(rand.NewPCG(uint64(g), 1))
			for from := 0; from < counters; from += ahead {
				for _, i := range order.Perm(min(ahead, counters-from)) {
					if _, ok := s.accept(uint64(from + i)); ok {
						accepted[from+i].Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	missed := 0
	for i := range accepted {
		switch n := accepted[i].Load(); {
		case n > 1:
			t.Fatalf("counter %d was accepted %d times", i, n)
		case n == 0:
			missed++ // all readers were further on than the window is long
		}
	}
	if missed > counters/2 {
		t.Errorf("%d of %d counters were never accepted", missed, counters)
	}
}

// TestDuplicatesByRelayAndDirectlyAreDeliveredOnce: each packet for b comes by one carrier directly and by another in a circuit, at
// the same moment, and several times by each. b's readers of the two race for it.
func TestDuplicatesByRelayAndDirectlyAreDeliveredOnce(t *testing.T) {
	const packets, copies = 3000, 2
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, relay := l.node("a"), l.node("b"), l.node("relay")
		// b is on a second network as well, where it has a session with the relay.
		other := underlay.NewMemory(underlay.MemoryConfig{Seed: 2})
		second, err := other.Attach(b.addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.engine.AddCarrier(second); err != nil {
			t.Fatal(err)
		}
		relays, err := other.Attach(relay.addr)
		if err != nil {
			t.Fatal(err)
		}
		relay.wire.Close() // it is on that network alone
		synctest.Wait()
		if err := relay.engine.AddCarrier(relays); err != nil {
			t.Fatal(err)
		}
		if _, err := b.engine.AddRemote(RemoteConfig{Name: "relay", PublicKey: relay.key.Public(), Relay: true}); err != nil {
			t.Fatal(err)
		}
		relay.knows(b, at(b))
		a.knows(b, at(b))
		b.knows(a, "")
		advance(2 * time.Second)
		if b.sessionWith(relay) == nil || b.sessionWith(a) == nil {
			t.Fatal("no session with the relay, or none with a")
		}
		l.net.SetTap(func(from, to netip.AddrPort, d []byte) []byte {
			if from != a.addr || wire.KindOf(d) != wire.KindData {
				return d
			}
			byCircuit := make([]byte, wire.CircuitOverhead, wire.CircuitOverhead+len(d))
			wire.PutCircuit(byCircuit, 77)
			byCircuit = append(byCircuit, d...)
			for range copies {
				other.Inject(relay.addr, b.addr, byCircuit)
				l.net.Inject(from, to, d)
			}
			return nil
		})
		replayed := b.drops(DropReplay)
		got := map[string]int{}
		for i := range packets {
			a.send(b, fmt.Sprint(i))
			if i%200 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		for _, text := range b.dev.texts() {
			got[text]++
		}
		for i := range packets {
			if n := got[fmt.Sprint(i)]; n != 1 {
				t.Fatalf("packet %d was delivered %d times; drops %v", i, n, b.engine.Stats().Drops)
			}
		}
		if n := b.drops(DropReplay) - replayed; n < packets*(2*copies-1) {
			t.Errorf("%d duplicates counted, want %d", n, packets*(2*copies-1))
		}
	})
}
