package engine

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/adit-overlay/adit/wire"
)

// What may become of a datagram on the way.
type fate uint8

const (
	arrives fate = iota
	lost
	doubled // at once, and again when the next try may have been answered
	late    // by less than a retry takes
	veryLate
	fates
)

func (f fate) String() string {
	return [fates]string{"arrives", "lost", "doubled", "late", "very late"}[f]
}

// suffer gives the first datagrams on the network these fates, one after the other in the order they are sent. It counts
// the initiations and responses.
func (l *lab) suffer(all []fate) (handshakes func() int) {
	var mu sync.Mutex
	sent, begun := 0, 0
	l.net.SetTap(func(from, to netip.AddrPort, d []byte) []byte {
		mu.Lock()
		defer mu.Unlock()
		if kind := wire.KindOf(d); kind == wire.KindInitiation || kind == wire.KindResponse {
			begun++
		}
		sent++
		if sent > len(all) {
			return d
		}
		again := func(after time.Duration) {
			copied := bytes.Clone(d)
			time.AfterFunc(after, func() { l.net.Inject(from, to, copied) })
		}
		switch all[sent-1] {
		case lost:
			return nil
		case doubled:
			again(1500 * time.Millisecond)
		case late:
			again(300 * time.Millisecond)
			return nil
		case veryLate:
			again(2500 * time.Millisecond)
			return nil
		}
		return d
	})
	return func() int { mu.Lock(); defer mu.Unlock(); return begun }
}

// TestAnyFateOfTheFirstMessagesEndsInOneSession tries them all: whichever of the first datagrams, the messages of the handshake and
// what confirms it, is lost, doubled or late, whether one end begins or both at once, soon there is one session, it carries
// both ways, and it stays.
func TestAnyFateOfTheFirstMessagesEndsInOneSession(t *testing.T) {
	const first = 4
	every := 1
	if raceEnabled {
		every = 7
	}
	n := 1
	for range first {
		n *= int(fates)
	}
	for _, both := range []bool{false, true} {
		for i := 0; i < n; i += every {
			all := make([]fate, first)
			for j, k := 0, i; j < first; j, k = j+1, k/int(fates) {
				all[j] = fate(k % int(fates))
			}
			inFakeTime(t, func(t *testing.T, l *lab) {
				handshakes := l.suffer(all)
				a, b := l.node("a"), l.node("b")
				endpoint := ""
				if both {
					endpoint = at(a)
				}
				a.knows(b, at(b))
				b.knows(a, endpoint)
				advance(6 * time.Second)
				if a.sessionWith(b) == nil || b.sessionWith(a) == nil {
					t.Fatalf("both begin: %v, %v: no session after 6 s", both, all)
				}
				advance(4 * time.Second) // the last that are late come, and come to nothing
				wantsOneSession(a, b)
				session, sent := a.sessionWith(b), handshakes()
				if i == 0 && sent > 3 { // all arrive: two initiations cross, and one is answered
					t.Fatalf("both begin: %v: %d handshake messages", both, sent)
				}
				a.send(b, "ping")
				b.wants("ping")
				b.send(a, "pong")
				a.wants("pong")
				advance(time.Minute)
				if a.sessionWith(b) != session || handshakes() != sent {
					t.Fatalf("both begin: %v, %v: the session did not stay; %d more handshake messages", both, all, handshakes()-sent)
				}
				for _, n := range []*node{a, b} {
					if k := len(n.engine.indexes.sessions); k > 2 { // and one replaced, kept 90 s
						t.Fatalf("both begin: %v, %v: %s holds %d sessions", both, all, n.name, k)
					}
				}
			})
		}
	}
}

// TestTheSmallersInitiationIsAnsweredWhenTheGreatersAreLost: which of two that begin at once goes first must not matter for longer than a
// moment, for the way of the one that does may be blocked.
func TestTheSmallersInitiationIsAnsweredWhenTheGreatersAreLost(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		greater, _ := greaterOf(a, b)
		l.net.SetTap(func(from, _ netip.AddrPort, d []byte) []byte {
			if from == greater.addr && wire.KindOf(d) == wire.KindInitiation {
				return nil
			}
			return d
		})
		a.start()
		b.start()
		a.knows(b, at(b))
		b.knows(a, at(a))
		advance(wire.Precedence + 2*time.Second)
		wantsOneSession(a, b)
		a.send(b, "ping")
		b.wants("ping")
	})
}

// A narrow source of chance draws session indexes from very few, so that they collide.
type narrow struct{ io.Reader }

func (n narrow) Read(b []byte) (int, error) {
	k, err := n.Reader.Read(b)
	if len(b) == 4 { // an index: all else is longer
		b[0], b[1], b[2], b[3] = 0, 0, 0, b[3]%8
	}
	return k, err
}

// TestCollidingIndexesMixNothingUp: three nodes draw from eight indexes, so that those of one node collide all the time, and
// are used again soon, and those of two are often alike. Packets arrive once, where they belong.
func TestCollidingIndexesMixNothingUp(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		nodes := []*node{l.plan("a"), l.plan("b"), l.plan("c")}
		for _, n := range nodes {
			n.random, n.rekey = narrow{n.random}, 10*time.Second
			n.start()
		}
		for _, n := range nodes {
			for _, other := range nodes {
				if n != other {
					n.knows(other, at(other))
				}
			}
		}
		advance(3 * time.Second)
		sessions := map[*session]bool{}
		for round := range 60 {
			for _, n := range nodes {
				for _, other := range nodes {
					if n != other {
						n.send(other, fmt.Sprint(n.name, round))
						sessions[n.sessionWith(other)] = true
					}
				}
			}
			advance(2 * time.Second)
			for i, n := range nodes {
				got := map[string]int{}
				for _, text := range n.dev.texts() {
					got[text]++
				}
				for j, other := range nodes {
					if want := fmt.Sprint(other.name, round); i != j && (got[want] != 1 || len(got) != 2) {
						t.Fatalf("round %d: %s received %v, want %q once; drops %v", round, n.name, got, want, n.engine.Stats().Drops)
					}
				}
			}
		}
		if len(sessions) < 20 {
			t.Errorf("only %d sessions: too few for indexes to collide", len(sessions))
		}
		for _, n := range nodes {
			for i, s := range n.engine.indexes.sessions {
				if s.local != i || i > 7 {
					t.Errorf("%s has session %d under index %d", n.name, s.local, i)
				}
			}
		}
	})
}
