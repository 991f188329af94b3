package relay

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/underlay"
)

const hop = 20 * time.Millisecond // from anybody to anybody, where a test counts round trips

// A NAT that has lost its mapping costs a member that sends a round trip: circuit data from the new
// address, the challenge, the answer.
func TestAFlushedNATCostsAboutARoundTrip(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		l.net.SetDefault(underlay.Link{Delay: hop})
		l.start()
		meet(a, b)
		session := wantsOneSession(a, b)
		for i := range 3 {
			advance(5 * time.Second)
			if err := a.wire.Rebind(netip.AddrPortFrom(a.addr.Addr(), uint16(6000+i))); err != nil {
				t.Fatal(err)
			}
			moved := time.Now()
			const step = 5 * time.Millisecond
			text := fmt.Sprint("it is me, from elsewhere for time ", i)
			for {
				a.send(b, text)
				advance(step)
				if slices.Contains(b.dev.texts(), text) {
					break
				}
				if time.Since(moved) > 5*time.Second {
					t.Fatal("nothing comes through any more")
				}
			}
			// There and back with the challenge, the next packet by relay to b.
			if took, limit := time.Since(moved), 4*hop+3*step; took > limit {
				t.Errorf("b heard from a again after %v, want at most %v", took, limit)
			}
			b.send(a, "welcome")
			a.wantsWithin(2*hop, "welcome")
		}
		if again := wantsOneSession(a, b); again != session {
			t.Error("the session did not live on")
		}
	})
}

// The same when the other end does the talking: a is found again when it answers.
func TestAFlushedNATOfTheListener(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		l.net.SetDefault(underlay.Link{Delay: hop})
		l.start()
		meet(a, b)
		session := wantsOneSession(a, b)
		if err := b.wire.Rebind(netip.AddrPortFrom(b.addr.Addr(), 6000)); err != nil {
			t.Fatal(err)
		}
		took := talk(t, a, b, 10*time.Second)
		t.Logf("b, which is not known to have moved, hears a after %v", took)
		if took > 5*time.Second {
			t.Errorf("b hears a after %v, want at most 5s", took)
		}
		if again := wantsOneSession(a, b); again != session {
			t.Error("the session did not live on")
		}
	})
}

// talk has a send to b every 20 ms until b has heard it, and b then to a, and returns how long both took.
func talk(t *testing.T, a, b *node, limit time.Duration) time.Duration {
	t.Helper()
	begin := time.Now()
	for i := 0; ; i++ {
		text := fmt.Sprint("talk ", i)
		a.send(b, text)
		advance(20 * time.Millisecond)
		if len(b.dev.texts()) > 0 {
			break
		}
		if time.Since(begin) > limit {
			t.Fatalf("%s does not hear %s within %v", b.name, a.name, limit)
		}
	}
	b.send(a, "heard")
	a.wantsWithin(limit, "heard")
	return time.Since(begin)
}

func TestARelayRestarts(t *testing.T) {
	for _, test := range []struct {
		name  string
		quiet time.Duration // both, before the restart
		down  time.Duration // how long there is no relay
	}{
		{"under way", 0, 0},
		{"after a second", time.Second, 0},
		{"after ten seconds of quiet", 10 * time.Second, 0},
		{"after fifty seconds of quiet", 50 * time.Second, 0},
		{"down for a second", 0, time.Second},
		{"down for ten seconds", 0, 10 * time.Second},
		{"down for a minute", 5 * time.Second, time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, l *lab) {
				a, b := l.plan("a"), l.plan("b")
				l.net.SetDefault(underlay.Link{Delay: hop})
				l.start()
				meet(a, b)
				session := wantsOneSession(a, b)
				advance(test.quiet)
				l.stopRelay()
				advance(test.down)
				l.startRelay()
				// a has something to send. b only listens, and does not know that its relay forgot it.
				took := talk(t, a, b, 20*time.Second)
				t.Logf("a and b are back after %v", took)
				if took > 5*time.Second {
					t.Errorf("back after %v, want at most 5s", took)
				}
				if again := wantsOneSession(a, b); again != session {
					t.Errorf("the session of %v did not live on: it is of %v", session, again)
				}
				if s := l.relay.Stats(); s.Online != 2 || s.Circuits != 1 {
					t.Errorf("%d members and %d circuits at the new relay", s.Online, s.Circuits)
				}
			})
		})
	}
}

// A stream that sends again what is not acknowledged, as TCP does, keeps its order and loses nothing over
// a restart of the relay.
func TestAStreamLivesThroughARestartOfTheRelay(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		l.net.SetDefault(underlay.Link{Delay: hop})
		l.start()
		meet(a, b)
		session := wantsOneSession(a, b)
		const total, window = 400, 10
		received, acked := 0, 0
		restarted := time.Time{}
		var gap time.Duration
		last := time.Now()
		for acked < total {
			if time.Since(last) > 20*time.Second {
				t.Fatalf("stuck at %d of %d", acked, total)
			}
			for i := acked; i < min(acked+window, total); i++ {
				a.send(b, fmt.Sprintf("%06d", i))
			}
			advance(5 * hop)
			for _, s := range b.dev.texts() {
				if s == fmt.Sprintf("%06d", received) {
					received++
					last, gap = time.Now(), max(gap, time.Since(last))
				} else if s > fmt.Sprintf("%06d", received) {
					t.Fatalf("%s before %06d", s, received)
				}
			}
			b.send(a, fmt.Sprintf("%06d", received))
			advance(3 * hop)
			for _, s := range a.dev.texts() {
				var n int
				if fmt.Sscanf(s, "%d", &n); n > acked {
					acked = n
				}
			}
			if received > total/2 && restarted.IsZero() {
				restarted = time.Now()
				l.stopRelay()
				advance(200 * time.Millisecond)
				l.startRelay()
			}
		}
		if gap > 5*time.Second {
			t.Errorf("nothing arrived for %v", gap)
		}
		t.Logf("longest gap %v", gap)
		if again := wantsOneSession(a, b); again != session {
			t.Error("the session did not live on")
		}
	})
}

func TestAMemberThatRestartsIsReachedAtOnce(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		l.net.SetDefault(underlay.Link{Delay: hop})
		l.start()
		meet(a, b)
		b.stop()
		advance(time.Second)
		b.start()
		if took := talk(t, a, b, 10*time.Second); took > time.Second {
			t.Errorf("the member that restarted was reached after %v", took)
		}
		// And reaches the others.
		b.stop()
		b.start()
		b.send(a, "here I am")
		if took := a.wantsWithin(10*time.Second, "here I am"); took > time.Second {
			t.Errorf("it reached the other after %v", took)
		}
		if n := l.circuits(); n != 1 {
			t.Errorf("%d circuits, want the one", n)
		}
		wantsOneSession(a, b)
	})
}

// Two processes with one key: the one that came last is the member, nothing breaks, and the log shows it.
func TestOfTwoProcessesWithOneKeyTheNewerWins(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		var log bytes.Buffer
		l.cfg.Engine.Logger = slog.New(slog.NewTextHandler(&log, nil))
		a, b := l.plan("a"), l.plan("b")
		l.net.SetDefault(underlay.Link{Delay: hop})
		l.start()
		meet(a, b)
		twin := &node{lab: l, name: "twin", key: b.key, ip: b.ip, ip6: b.ip6}
		_, twin.addr, _, _ = l.identity()
		l.nodes = append(l.nodes, twin)
		twin.start()
		advance(time.Second)
		talk(t, a, twin, 5*time.Second)
		b.dev.texts()
		for i := range 60 {
			text := fmt.Sprint("to the newer ", i)
			a.send(twin, text)
			twin.wantsWithin(time.Second, text)
			advance(time.Second)
		}
		b.wants()
		if s := l.relay.Stats(); s.Online != 2 || s.Circuits != 1 {
			t.Errorf("%d members and %d circuits", s.Online, s.Circuits)
		}
		synctest.Wait()
		if want := fmt.Sprintf("msg=path remote=b was=%v now=%v", b.addr, twin.addr); !strings.Contains(log.String(), want) {
			t.Errorf("not logged: %s; the log is\n%s", want, &log)
		}
		// With the newer gone, the older is the member again, as soon as it finds its session forgotten.
		twin.stop()
		if took := talk(t, a, b, time.Minute); took > time.Minute {
			t.Errorf("the older is back after %v", took)
		}
	})
}

// A relay that is lost, for good or for a while, costs those nothing who have a direct path.
func TestARelayThatIsLostCostsADirectPathNoPacket(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		a.direct = []*node{b}
		l.net.SetDefault(underlay.Link{Delay: hop})
		l.start()
		sent, got := 0, map[string]int{}
		exchange := func(d time.Duration) {
			for until := time.Now().Add(d); time.Now().Before(until); advance(50 * time.Millisecond) {
				a.send(b, fmt.Sprint("there ", sent))
				b.send(a, fmt.Sprint("back ", sent))
				sent++
				for _, text := range append(a.dev.texts(), b.dev.texts()...) {
					got[text]++
				}
			}
		}
		exchange(5 * time.Second)
		if s := a.status(b); !s.Connected || s.Via != "" {
			t.Fatalf("no direct path: %+v", s)
		}
		l.stopRelay()
		exchange(2 * time.Minute)
		l.startRelay()
		exchange(time.Minute)
		l.net.Partition(a.addr, l.addr)
		l.net.Partition(b.addr, l.addr)
		exchange(15 * time.Minute) // new keys, and the end of the sessions with the relay
		advance(time.Second)
		for _, text := range append(a.dev.texts(), b.dev.texts()...) {
			got[text]++
		}
		lost, twice := 0, 0
		for i := range sent {
			for _, way := range []string{"there ", "back "} {
				switch got[fmt.Sprint(way, i)] {
				case 0:
					lost++
				case 1:
				default:
					twice++
				}
			}
		}
		t.Logf("%d of %d packets lost, %d doubled", lost, 2*sent, twice)
		if lost > 0 || twice > 0 {
			t.Error("want none")
		}
	})
}

// After an hour without the relay, or of sleep, members that know only the relay reach each other again within two
// seconds, whatever the moment: the one finds the relay again, and then the other by it.
func TestMembersReachEachOtherTwoSecondsAfterAnHour(t *testing.T) {
	const limit = 2 * time.Second
	moments := 4
	if testing.Short() || raceEnabled {
		moments = 1
	}
	for _, test := range []struct {
		name  string
		cause func(l *lab, a, b *node, d time.Duration)
	}{
		{"a sleeps", func(l *lab, a, _ *node, d time.Duration) {
			a.wire.Unplug()
			advance(d)
			a.wire.Plug()
		}},
		{"a is cut off from the relay", func(l *lab, a, _ *node, d time.Duration) {
			l.net.Partition(a.addr, l.addr)
			advance(d)
			l.net.Heal(a.addr, l.addr)
		}},
		{"the relay is cut off", func(l *lab, _, _ *node, d time.Duration) {
			l.wire.Unplug()
			advance(d)
			l.wire.Plug()
		}},
	} {
		for _, speaker := range []string{"a", "b"} {
			t.Run(test.name+", then "+speaker+" speaks", func(t *testing.T) {
				var longest time.Duration
				for i := range moments {
					inFakeTime(t, func(t *testing.T, l *lab) {
						a, b := l.plan("a"), l.plan("b")
						l.net.SetDefault(underlay.Link{Delay: hop})
						l.start()
						meet(a, b)
						d := 20 * time.Minute // as good as an hour: no session and no circuit lives so long
						if i == 0 {
							d = time.Hour
						}
						test.cause(l, a, b, d+time.Duration(i)*837*time.Millisecond)
						first, second := a, b
						if speaker == "b" {
							first, second = b, a
						}
						longest = max(longest, talk(t, first, second, 20*time.Second))
						wantsOneSession(a, b)
					})
				}
				t.Logf("traffic after %v at the latest", longest)
				if longest > limit {
					t.Errorf("no traffic for %v, want at most %v", longest, limit)
				}
			})
		}
	}
}

// The relay is back at the worst moment: both have just looked for it, and the one who speaks will find it just before the
// other, so that what it first sends to the other is lost.
func TestMembersReachEachOtherTwoSecondsAfterAnHourFromTheWorstMoment(t *testing.T) {
	const limit = 2 * time.Second
	outages := 4
	if testing.Short() || raceEnabled {
		outages = 1
	}
	// Chance decides who looks for the relay first, so about half of them are of this kind.
	for tries := 0; outages > 0; tries++ {
		if tries == 60 {
			t.Fatal("nothing was lost in 60 outages: this is not the moment")
		}
		inFakeTime(t, func(t *testing.T, l *lab) {
			var mu sync.Mutex
			looked := make(map[netip.AddrPort]time.Time) // when each last sent the relay something
			l.net.SetObserver(func(p underlay.Passage, _ underlay.Fate) {
				mu.Lock()
				defer mu.Unlock()
				looked[p.From] = p.Sent
			})
			a, b := l.plan("a"), l.plan("b")
			justLooked := func() bool { // a now, and b just before
				mu.Lock()
				defer mu.Unlock()
				before := looked[a.addr].Sub(looked[b.addr])
				return time.Since(looked[a.addr]) <= 2*hop && hop <= before && before <= 3*hop
			}
			l.net.SetDefault(underlay.Link{Delay: hop})
			l.start()
			meet(a, b)
			l.wire.Unplug()
			advance(20 * time.Minute) // no session and no circuit lives so long
			for begin := time.Now(); !justLooked(); advance(time.Millisecond) {
				if time.Since(begin) > 10*time.Minute {
					t.Fatal("the moment does not come: do they look for the relay in step?")
				}
			}
			l.wire.Plug()
			took := talk(t, b, a, 20*time.Second)
			wantsOneSession(a, b)
			if took > time.Second {
				outages--
				t.Logf("traffic after %v", took)
			}
			if took > limit {
				t.Errorf("no traffic for %v, want at most %v", took, limit)
			}
		})
	}
}
