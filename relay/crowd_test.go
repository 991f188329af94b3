package relay

import (
	"fmt"
	"testing"
	"time"

	"github.com/adit-overlay/adit/internal/heaptest"
	"github.com/adit-overlay/adit/underlay"
)

// A relay with thousands of members is an ordinary one, and a small machine has it. The garbage collector lets the process
// have half as much again (cmd/adit). Stacks are counted in rows of 32 kB, and how full those are is chance, more so on
// many processors: 200 bytes a member.
func TestMemoryOfAMember(t *testing.T) {
	members := 500
	if raceEnabled {
		members = 100
	}
	for _, tt := range []struct {
		name            string
		sessions, limit int
	}{
		{"with a session", 1, 7000},
		{"with a session and the one before", 2, 10000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, l *lab) {
				for i := range members {
					l.member(fmt.Sprint("m", i))
				}
				before := heaptest.InUse()
				l.start()
				for range tt.sessions {
					for _, m := range l.raws {
						if !m.connect() {
							t.Fatal("no session")
						}
					}
				}
				if n := l.relay.Stats().Online; n != members {
					t.Fatalf("%d members are online", n)
				}
				for _, m := range l.raws {
					m.sealer, m.opener = nil, nil // the members' own part
				}
				got := (heaptest.InUse() - before) / members
				t.Logf("%d bytes a member", got)
				if got > tt.limit && !raceEnabled {
					t.Errorf("a member costs %d bytes, want at most %d", got, tt.limit)
				}
			})
		})
	}
}

// A thousand members that start at once, and each want to talk with others at once, are through in seconds: nothing
// of the relay is a queue that overflows, and nobody waits for somebody else's timeout.
func TestAThousandMembersReachEachOtherAtOnce(t *testing.T) {
	crowdSize := 1000
	if testing.Short() || raceEnabled {
		crowdSize = 100 // thousands of handshakes take a minute with the race detector
	}
	const each = 2 // that one member talks with
	inFakeTime(t, func(t *testing.T, l *lab) {
		l.net.SetDefault(underlay.Link{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond})
		for i := range crowdSize {
			l.plan(fmt.Sprint("m", i))
		}
		l.startRelay()
		for _, n := range l.nodes {
			n.start()
		}
		// The others are spread so that no two members want the same.
		others := func(i int) (all []*node) {
			for k := range each {
				all = append(all, l.nodes[(i+1+k*k*7+k)%crowdSize])
			}
			return all
		}
		for i, from := range l.nodes {
			for _, to := range others(i) {
				from.send(to, from.name+" to "+to.name)
			}
		}
		begin := time.Now()
		missing := crowdSize * each
		heard := make(map[string]int)
		for missing > 0 && time.Since(begin) < 10*time.Second {
			advance(100 * time.Millisecond)
			for _, n := range l.nodes {
				for _, text := range n.dev.texts() {
					if heard[text]++; heard[text] == 1 {
						missing--
					}
				}
			}
		}
		t.Logf("all have heard after %v; drops %v", time.Since(begin), l.relay.Engine().Stats().Drops)
		for text, n := range heard {
			if n > 1 {
				t.Errorf("%q arrived %d times", text, n)
			}
		}
		if missing > 0 {
			t.Errorf("%d of %d are not heard after %v", missing, crowdSize*each, time.Since(begin))
		}
		if s := l.relay.Stats(); s.Online != crowdSize || s.Circuits != crowdSize*each {
			t.Errorf("%d online, %d circuits", s.Online, s.Circuits)
		}
	})
}
