package engine

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// pair are two nodes that know each other's endpoint and have a session.
func (l *lab) pair() (a, b *node) {
	a, b = l.node("a"), l.node("b")
	a.knows(b, at(b))
	b.knows(a, at(a))
	advance(time.Second)
	wantsOneSession(a, b)
	return a, b
}

func TestEndpointOnEitherSideOrBoth(t *testing.T) {
	for _, who := range []string{"a", "b", "both"} {
		inFakeTime(t, func(t *testing.T, l *lab) {
			a, b := l.node("a"), l.node("b")
			var toA, toB string
			if who != "b" {
				toB = at(b)
			}
			if who != "a" {
				toA = at(a)
			}
			a.knows(b, toB)
			b.knows(a, toA)
			advance(100 * time.Millisecond)
			wantsOneSession(a, b)
			a.send(b, "ping")
			b.wants("ping")
			b.send(a, "pong")
			a.wants("pong")
		})
	}
}

// TestBothInitiateAtOnceUnderLossAndReordering: whatever is lost, doubled or late, one session
// comes out, and it carries both ways.
func TestBothInitiateAtOnceUnderLossAndReordering(t *testing.T) {
	for seed := range uint64(250) {
		inFakeTime(t, func(t *testing.T, l *lab) {
			l.seed = byte(seed)
			l.net = underlay.NewMemory(underlay.MemoryConfig{Seed: seed, Link: underlay.Link{
				Loss: 0.3, Duplicate: 0.2, Delay: 30 * time.Millisecond, Jitter: 60 * time.Millisecond,
			}})
			a, b := l.node("a"), l.node("b")
			a.knows(b, at(b))
			b.knows(a, at(a))
			advance(20 * time.Second)
			l.net.SetDefault(underlay.Link{})
			advance(10 * time.Second)
			wantsOneSession(a, b)
			a.dev.take()
			b.dev.take()
			a.send(b, "ping")
			b.wants("ping")
			b.send(a, "pong")
			a.wants("pong")
		})
	}
}

// A session is up within ten seconds on a bad line, while somebody has something to send. ADIT_LINE_RUNS=3000 makes so many of each.
func TestSessionIsUpWithinTenSecondsOnABadLine(t *testing.T) {
	const limit = 10 * time.Second
	runs := 100
	if s := os.Getenv("ADIT_LINE_RUNS"); s != "" {
		var err error
		if runs, err = strconv.Atoi(s); err != nil || runs < 100 {
			t.Fatalf("ADIT_LINE_RUNS=%s: want a number of at least 100", s)
		}
	}
	for _, test := range []struct {
		name string
		link underlay.Link
		down float64 // share of the time in which all is lost, for a second on average each time
	}{
		{"30 % loss", underlay.Link{Loss: 0.3}, 0},
		{"30 % loss in rows of four", underlay.Link{Burst: underlay.Burst{Begin: 0.107, End: 0.25}}, 0},
		{"down for a second at a time, 30 % of all", underlay.Link{}, 0.3},
		{"10 % loss, and half doubled and half out of order", underlay.Link{Loss: 0.1, Duplicate: 0.5, Reorder: 0.5, ReorderDelay: 200 * time.Millisecond}, 0},
		{"half doubled, all out of order", underlay.Link{Duplicate: 0.5, Jitter: 300 * time.Millisecond}, 0},
		{"a tenth of all changed", underlay.Link{Corrupt: 0.1}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var took []time.Duration
			for seed := range uint64(runs) {
				inFakeTime(t, func(t *testing.T, l *lab) {
					l.seed = byte(seed)
					link := test.link
					link.Delay += 20 * time.Millisecond
					l.net = underlay.NewMemory(underlay.MemoryConfig{Seed: seed, Link: link})
					a, b := l.node("a"), l.node("b")
					a.knows(b, at(b))
					b.knows(a, "")
					began := time.Now()
					if test.down > 0 {
						go l.outages(t.Context(), seed, test.down, link)
						synctest.Wait()
					}
					for i := 0; a.sessionWith(b) == nil && time.Since(began) < 10*limit; i++ {
						if i%25 == 0 {
							a.send(b, "are you there?")
						}
						advance(20 * time.Millisecond)
					}
					took = append(took, time.Since(began))
				})
			}
			slices.Sort(took)
			late := 0
			for _, d := range took {
				if d > limit {
					late++
				}
			}
			t.Logf("of %d sessions, half are up after %v, 90 %% after %v, 99 %% after %v, all after %v; %d after more than %v",
				runs, took[runs/2-1], took[runs*90/100-1], took[runs*99/100-1], took[runs-1], late, limit)
			if late > 0 {
				t.Errorf("%d of %d sessions are not up after %v", late, runs, limit)
			}
		})
	}
}

// outages has the line lose all, for a second on average each time and that share of all time.
func (l *lab) outages(ctx context.Context, seed uint64, share float64, link underlay.Link) {
	chance := rand.New(rand.NewPCG(seed, 1))
	for down := chance.Float64() < share; ; down = !down {
		state, seconds := link, (1-share)/share
		if down {
			state, seconds = underlay.Link{Loss: 1}, 1
		}
		l.net.SetDefault(state)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(chance.ExpFloat64() * seconds * float64(time.Second))):
		}
	}
}

// A lost answer is given again before the initiator asks again, but once, and not at all when it has arrived. No copy of an
// initiation arrives here.
func TestALostAnswerIsGivenAgain(t *testing.T) {
	for _, lost := range []int{0, 1, 2} {
		inFakeTime(t, func(t *testing.T, l *lab) {
			var mu sync.Mutex
			var initiations, answers [][]byte
			l.net.SetDefault(underlay.Link{Delay: 20 * time.Millisecond})
			l.net.SetTap(func(_, _ netip.AddrPort, d []byte) []byte {
				mu.Lock()
				defer mu.Unlock()
				switch wire.KindOf(d) {
				case wire.KindInitiation:
					if n := len(initiations); n > 0 && bytes.Equal(initiations[n-1], d) {
						return nil
					}
					initiations = append(initiations, bytes.Clone(d))
				case wire.KindResponse:
					answers = append(answers, bytes.Clone(d))
					if len(answers) <= lost {
						return nil
					}
				}
				return d
			})
			a, b := l.node("a"), l.node("b")
			a.knows(b, at(b))
			b.knows(a, "")
			wants := func(asked, answered int) {
				t.Helper()
				mu.Lock()
				defer mu.Unlock()
				if len(initiations) != asked || len(answers) != answered {
					t.Fatalf("%d answers lost: %d initiations and %d answers, want %d and %d", lost, len(initiations), len(answers), asked, answered)
				}
				if lost > 0 && !bytes.Equal(answers[0], answers[1]) {
					t.Error("the second answer differs from the first")
				}
			}
			advance(firstRetry - time.Millisecond)
			wants(1, 1+min(lost, 1))
			if up := a.sessionWith(b) != nil && b.sessionWith(a) != nil; up != (lost < 2) {
				t.Errorf("%d answers lost: session %v within a second", lost, up)
			}
			advance(10 * time.Second)
			wantsOneSession(a, b)
			wants(1+lost/2, 1+lost)
		})
	}
}

// A process that was stopped finds, in its socket, what came before its session with the relay was over. That is served after
// the relay's answer to a new handshake, and a circuit does not outlive its session.
func TestInitiationByACircuitOfASessionThatHasEndedIsNotAnswered(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b, relay := l.node("a"), l.plan("b"), l.node("relay")
		relay.knows(a, "")
		r, err := a.engine.AddRemote(RemoteConfig{Name: "relay", PublicKey: relay.key.Public(), Endpoint: at(relay), Relay: true})
		if err != nil {
			t.Fatal(err)
		}
		remote := a.knows(b, "")
		// answers reports whether a answers what b began and a received then.
		answers := func(received time.Time) bool {
			t.Helper()
			if !a.sessionWith(relay).confirmed.Load() {
				t.Fatal("there is no session with the relay")
			}
			msg := b.initiations(a, 1, 0, time.Now())[0]
			dropped := a.drops(DropCircuit)
			a.engine.serveInitiation(letter{msg: msg, from: path{relay: r, circuit: 7}, received: received}, time.Now())
			remote.mu.Lock()
			offered := remote.keys.next != nil
			remote.mu.Unlock()
			if n := a.drops(DropCircuit) - dropped; offered == (n == 1) {
				t.Errorf("answered: %t, and %d counted as without a circuit", offered, n)
			}
			return offered
		}

		advance(time.Second)
		first := a.sessionWith(relay)
		a.wire.Unplug()
		advance(wire.RejectAfter - 2*time.Second)
		before := time.Now()
		advance(4 * time.Second)
		a.wire.Plug()
		advance(2 * time.Second)
		second := a.sessionWith(relay)
		if second == first {
			t.Fatal("the session has not ended: the test shows nothing")
		}
		if answers(before) {
			t.Error("what came by a circuit of the session before is answered")
		}

		before = time.Now()
		advance(time.Second)
		a.renew(relay)
		if a.sessionWith(relay) == second {
			t.Fatal("the session has not been renewed: the test shows nothing")
		}
		if !answers(before) {
			t.Error("what came just before the keys were renewed is not answered")
		}
	})
}

// An initiation is sent again sooner than it can be answered, and each takes the place of the one before at both ends.
func TestSessionIsUpOverALineSlowerThanTheRetries(t *testing.T) {
	for _, there := range []time.Duration{500 * time.Millisecond, 600 * time.Millisecond, 750 * time.Millisecond, 1250 * time.Millisecond} {
		for name, knows := range map[string]func(a, b *node){
			"a begins": func(a, b *node) { a.knows(b, at(b)); b.knows(a, "") },
			"both":     func(a, b *node) { a.knows(b, at(b)); b.knows(a, at(a)) },
			"a relay": func(a, b *node) {
				if _, err := a.engine.AddRemote(RemoteConfig{PublicKey: b.key.Public(), Endpoint: at(b), Relay: true}); err != nil {
					a.lab.t.Fatal(err)
				}
				b.knows(a, "")
			},
		} {
			inFakeTime(t, func(t *testing.T, l *lab) {
				l.net.SetDefault(underlay.Link{Delay: there})
				a, b := l.node("a"), l.node("b")
				knows(a, b)
				began := time.Now()
				for a.sessionWith(b) == nil || b.sessionWith(a) == nil {
					a.send(b, "are you there?")
					advance(100 * time.Millisecond)
					if took, limit := time.Since(began), 2*there+2*lastRetry; took > limit {
						t.Fatalf("%v there and back, %s: no session after %v", 2*there, name, took)
					}
				}
				t.Logf("%v there and back, %s: a session after %v", 2*there, name, time.Since(began))
			})
		}
	}
}

func TestWrongPresharedKeyComesToNothing(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		a.psk[0], b.psk[0] = 1, 2
		a.start()
		b.start()
		a.knows(b, at(b))
		b.knows(a, "")
		a.send(b, "secret")
		advance(8 * time.Second)
		if a.sessionWith(b) != nil || b.sessionWith(a) != nil {
			t.Fatal("a session came up")
		}
		if a.drops(DropHandshakeForged) == 0 {
			t.Error("the responses were not counted as forged")
		}
		b.wants()
	})
}

func TestStrangersAreNotAnswered(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.node("a"), l.node("b")
		a.knows(b, at(b)) // b does not know a
		advance(3 * time.Second)
		if a.sessionWith(b) != nil {
			t.Fatal("a stranger has a session")
		}
		if b.drops(DropUnknownKey) == 0 {
			t.Error("not counted")
		}
		if n := b.wire.Stats().DatagramsSent; n != 0 {
			t.Errorf("a stranger was sent %d datagrams", n)
		}
	})
}

// A recording holds copies of the datagrams of one kind that go by.
type recording struct {
	mu   sync.Mutex
	all  [][]byte
	lose int // so many more are lost, having been recorded
}

// record begins a recording, in place of any other.
func (l *lab) record(kind wire.Kind) *recording {
	r := new(recording)
	l.net.SetTap(func(_, _ netip.AddrPort, d []byte) []byte {
		if wire.KindOf(d) == kind {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.all = append(r.all, bytes.Clone(d))
			if r.lose > 0 {
				r.lose--
				return nil
			}
		}
		return d
	})
	return r
}

// take returns what was recorded since the last call.
func (r *recording) take() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all
}

var attacker = netip.MustParseAddrPort("198.51.100.66:666")

func TestReplayedInitiationChangesNothing(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		initiations := l.record(wire.KindInitiation)
		a, b := l.node("a"), l.node("b")
		a.knows(b, at(b))
		b.knows(a, "")
		advance(time.Second)
		before, path := b.sessionWith(a), *b.remote(a).path.Load()
		for _, d := range initiations.take() {
			l.net.Inject(attacker, b.addr, d)
			l.net.Inject(a.addr, b.addr, d)
		}
		advance(time.Minute)
		if b.sessionWith(a) != before || *b.remote(a).path.Load() != path {
			t.Fatal("session or path has changed")
		}
		if n := b.drops(DropReplayedHandshake); n != 2 {
			t.Errorf("%d counted as replayed, want 2", n)
		}
		a.send(b, "still here")
		b.wants("still here")
		wantsOneSession(a, b)
	})
}

// TestReplayedInitiationAfterRestartTakesOverNothing: a responder that has restarted cannot know the
// initiation from a new one. It answers, and that is all.
func TestReplayedInitiationAfterRestartTakesOverNothing(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		initiations := l.record(wire.KindInitiation)
		a, b := l.node("a"), l.node("b")
		a.knows(b, at(b))
		b.knows(a, "")
		advance(time.Second)
		b.stop()
		b.start()
		b.knows(a, at(a))
		advance(time.Second)
		wantsOneSession(a, b)
		before := b.sessionWith(a)
		l.net.Inject(attacker, b.addr, initiations.take()[0])
		advance(time.Minute)
		if b.sessionWith(a) != before {
			t.Fatal("the session was taken over")
		}
		if p := b.remote(a).path.Load(); p.addr != a.addr {
			t.Fatalf("the path went to %v", p.addr)
		}
		b.send(a, "for a only")
		a.wants("for a only")
	})
}

func TestHalfAHandshakeMovesNothing(t *testing.T) {
	// The initiation is delivered from the attacker's address and the response lost there.
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		before, path := b.sessionWith(a), *b.remote(a).path.Load()
		l.net.SetTap(func(from, to netip.AddrPort, d []byte) []byte {
			if wire.KindOf(d) == wire.KindInitiation {
				l.net.Inject(attacker, to, d)
				return nil
			}
			return d
		})
		a.renew(b)
		advance(3 * time.Second)
		if b.sessionWith(a) != before || *b.remote(a).path.Load() != path {
			t.Fatal("an unconfirmed session is in use")
		}
		a.send(b, "x")
		b.wants("x")
		b.send(a, "y")
		a.wants("y")
	})
}

func TestPeerRestarts(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.node("a"), l.node("b")
		a.knows(b, at(b))
		b.knows(a, "")
		a.send(b, "before")
		b.wants("before")
		for range 5 {
			advance(5 * time.Second)
			b.stop()
			b.start()
			b.knows(a, "")
			a.send(b, "first") // b says that it does not know the session; nothing is lost to that
			b.wants("first")
			wantsOneSession(a, b)
			b.send(a, "and back")
			a.wants("and back")
		}
	})
}

// TestRekeyRepeatsNothing: copies kept for a remote that restarts are no reason to send anything twice.
func TestRekeyRepeatsNothing(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.plan("b")
		a.rekey, b.rekey = 10*time.Second, 10*time.Second
		a.start()
		b.start()
		a.knows(b, at(b))
		b.knows(a, "")
		advance(time.Second)
		l.net.SetLink(b.addr, a.addr, underlay.Link{Delay: 600 * time.Millisecond})
		sent := 0
		for range 600 {
			a.send(b, "one way")
			sent++
			advance(100 * time.Millisecond)
		}
		if got := len(b.dev.texts()); got != sent {
			t.Errorf("%d packets arrived of %d", got, sent)
		}
	})
}

func TestNoticesOnlyPrompt(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		s := a.sessionWith(b)
		initiations := l.record(wire.KindInitiation)
		for range 1000 { // from the remote's address, about the right index
			l.net.Inject(b.addr, a.addr, wire.AppendNotice(nil, s.peer))
			l.net.Inject(attacker, a.addr, wire.AppendNotice(nil, s.peer))
			advance(10 * time.Millisecond)
			a.send(b, "x")
		}
		synctest.Wait()
		if got := len(b.dev.texts()); got != 1000 {
			t.Errorf("%d of 1000 packets arrived", got)
		}
		if n := len(initiations.take()); n > 12 {
			t.Errorf("%d handshakes in 10 s", n)
		}
		wantsOneSession(a, b)
	})
}

func TestFloodOfInitiationsDoesNotKeepAPeerOut(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		b := l.node("b")
		// Initiations of a member, so that MAC1 is right, from thousands of forged addresses.
		var flood [][]byte
		stranger, _ := wire.NewLocal(wire.PrivateKey{0: 200, 31: 0x40})
		for i := range 64 {
			_, msg, err := stranger.Initiate(nil, b.key.Public(), wire.PresharedKey{}, wire.Index(i), time.Now(), nil)
			if err != nil {
				t.Fatal(err)
			}
			flood = append(flood, msg)
		}
		c := l.node("c")
		b.knows(c, at(c))
		c.knows(b, at(b))
		advance(time.Second)
		wantsOneSession(b, c)

		a := l.plan("a")
		var stop atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := 0; !stop.Load(); i++ {
				for j := range 400 {
					from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(j), byte(i)}), uint16(1000+j))
					l.net.Inject(from, b.addr, flood[j%len(flood)])
				}
				time.Sleep(20 * time.Millisecond)
			}
		}()
		advance(time.Second)
		a.start()
		b.knows(a, "")
		a.knows(b, at(b))
		for range 100 {
			c.send(b, "data")
			time.Sleep(20 * time.Millisecond)
		}
		stop.Store(true)
		<-done
		synctest.Wait()
		if a.sessionWith(b) == nil {
			t.Error("a legitimate peer was not let in within 2 s")
		}
		if got := len(b.dev.texts()); got != 100 {
			t.Errorf("%d of 100 packets arrived during the flood", got)
		}
		if b.drops(DropCookie) == 0 {
			t.Error("no cookie was asked for")
		}
	})
}

// TestACookieIsShownAtOnceHoweverManyInitiationsWereLost: a remote that asks for a cookie will not answer what it had, so there is nothing to wait for.
func TestACookieIsShownAtOnceHoweverManyInitiationsWereLost(t *testing.T) {
	for lost := range 5 {
		inFakeTime(t, func(t *testing.T, l *lab) {
			a, b := l.node("a"), l.node("b")
			b.underLoad()
			sent := l.record(wire.KindInitiation)
			sent.lose = lost * (1 + maxCopies)
			b.knows(a, "")
			r := a.knows(b, at(b))
			for b.drops(DropCookie) == 0 {
				advance(time.Millisecond)
			}
			advance(time.Millisecond)
			if r.current.Load() == nil {
				t.Errorf("%d initiations lost: no session when the cookie is there", lost)
			}
		})
	}
}

// TestLateAnswersDoNotDelayTheCookie: a remote that was too busy for a while answers the first of our initiations, and asks for a cookie at the last.
// What the late answers tell of its distance is no reason to wait with the cookie.
func TestLateAnswersDoNotDelayTheCookie(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.node("a"), l.plan("b")
		busy, err := wire.NewLocal(b.key)
		if err != nil {
			t.Fatal(err)
		}
		sent := l.record(wire.KindInitiation)
		a.knows(b, at(b))
		advance(4*(firstRetry+firstRetry/8) - copyAfter)
		initiations := slices.CompactFunc(sent.take(), bytes.Equal)
		if len(initiations) < 4 {
			t.Fatalf("%d initiations", len(initiations))
		}
		last := len(initiations) - 1
		cookie, err := wire.NewCookieJar(busy).AppendReply(nil, b.random, initiations[last], a.addr, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		late := [][]byte{cookie}
		for i, msg := range initiations[:last] {
			req, err := busy.ReadInitiation(msg)
			if err != nil {
				t.Fatal(err)
			}
			answer, _, err := req.Respond(b.random, wire.PresharedKey{}, wire.Index(i+1))
			if err != nil {
				t.Fatal(err)
			}
			late = append(late, answer)
		}
		for _, d := range late {
			l.net.Inject(b.addr, a.addr, d)
		}
		synctest.Wait()
		shows := sent.take()
		if len(shows) != 1 || bytes.Equal(shows[0][len(shows[0])-16:], make([]byte, 16)) {
			t.Errorf("%d initiations follow the cookie at once, want one that shows it", len(shows))
		}
	})
}

// TestWhoAsksForCookiesAgainAndAgainIsAskedByTheTimer: a remote whose cookies are never good enough, or somebody in its name, cannot have us
// send initiations as fast as it answers them.
func TestWhoAsksForCookiesAgainAndAgainIsAskedByTheTimer(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		l.net.SetDefault(underlay.Link{Delay: 2 * time.Millisecond})
		a, b := l.node("a"), l.node("b")
		b.underLoad()
		sent := l.record(wire.KindInitiation)
		b.knows(a, "")
		a.knows(b, at(b))
		const within = 10 * time.Second
		for range within / time.Millisecond {
			k := &b.engine.inbox.doorkeeper
			k.mu.Lock()
			k.jar = wire.NewCookieJar(b.engine.local) // what the last gave is worth nothing
			k.mu.Unlock()
			advance(time.Millisecond)
		}
		rows := len(sent.takeRows())
		if most := 2 + int(within/firstRetry); rows > most {
			t.Errorf("%d initiations in %v, want at most %d", rows, within, most)
		}
		if asked := int(b.drops(DropCookie)); rows == 0 || asked != rows {
			t.Errorf("%d of %d initiations were asked for a cookie: the test shows nothing", asked, rows)
		}
	})
}

func TestForgedFloodFromAVictimsAddressDoesNotLockItOut(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		b, a := l.node("b"), l.plan("a")
		stranger, _ := wire.NewLocal(wire.PrivateKey{0: 200, 31: 0x40})
		_, msg, err := stranger.Initiate(nil, b.key.Public(), wire.PresharedKey{}, 1, time.Now(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 2000 {
			l.net.Inject(a.addr, b.addr, msg)
		}
		a.start()
		b.knows(a, "")
		a.knows(b, at(b))
		advance(2 * time.Second)
		wantsOneSession(a, b)
	})
}

func TestReplyIsNeverLongerThanWhatCausedIt(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		b := l.node("b")
		var longest = map[netip.AddrPort]int{}
		l.net.SetTap(func(from, to netip.AddrPort, d []byte) []byte {
			if from == b.addr && len(d) > longest[to] {
				longest[to] = len(d)
			}
			return d
		})
		a := l.plan("a")
		b.knows(a, "")
		local, _ := wire.NewLocal(a.key)
		probe := func(i int, d []byte) {
			from := netip.AddrPortFrom(attacker.Addr(), uint16(1000+i))
			l.net.Inject(from, b.addr, d)
			advance(10 * time.Millisecond)
			if longest[from] > len(d) {
				t.Errorf("%v of %d bytes was answered with %d", wire.KindOf(d), len(d), longest[from])
			}
		}
		_, msg, _ := local.Initiate(nil, b.key.Public(), wire.PresharedKey{}, 1, time.Now(), nil)
		probe(0, msg)
		data := make([]byte, wire.DataOverhead)
		data[0] = byte(wire.KindData)
		probe(1, data)
		for i := range 300 {
			d := make([]byte, i)
			for j := range d {
				d[j] = byte(i*7 + j)
			}
			if i > 0 {
				d[0] = byte(i % 8)
				probe(2+i, d)
			}
		}
		if len(longest) == 0 {
			t.Error("nothing was answered: the test sees nothing")
		}
	})
}

func TestEndpointNameIsLookedUpAgain(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.node("a"), l.node("b")
		moved := netip.MustParseAddrPort("192.0.2.77:5040")
		where := b.addr.Addr()
		a.engine.cfg.LookupHost = func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{where}, nil
		}
		b.knows(a, "")
		a.knows(b, "b.example.com:5040")
		a.send(b, "one")
		advance(3 * time.Second)
		b.wants("one")
		// b moves while nobody looks.
		where = moved.Addr()
		if err := b.wire.Rebind(moved); err != nil {
			t.Fatal(err)
		}
		took := recovery(a, b, 30*time.Second)
		t.Logf("traffic %v after b moved", took)
		if limit := deadAfter + time.Second; took > limit { // of silence, before a doubts that b is where it was
			t.Errorf("no traffic for %v, want at most %v", took, limit)
		}
	})
}

// A handshake of theirs that came to nothing, because our answer was lost, does not keep us from one of our own.
func TestUnconfirmedSessionHoldsUpNoHandshake(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		l.net.SetLink(b.addr, a.addr, underlay.Link{Down: true})
		for range 8 {
			a.send(b, "is anybody there?")
			advance(time.Second)
		}
		if b.remote(a).keys.next == nil {
			t.Fatal("a did not begin anew")
		}
		// a restarts, and does not know where b is. Notices, which would prompt b, are lost.
		a.stop()
		l.net.SetLink(b.addr, a.addr, underlay.Link{})
		l.net.SetTap(func(_, _ netip.AddrPort, d []byte) []byte {
			if wire.KindOf(d) == wire.KindNotice {
				return nil
			}
			return d
		})
		a.start()
		a.knows(b, "")
		began := time.Now()
		for len(a.dev.take()) == 0 {
			b.send(a, "hello")
			advance(50 * time.Millisecond)
			if time.Since(began) > deadAfter+time.Second {
				t.Fatalf("no traffic after %v", time.Since(began))
			}
		}
	})
}

// An answer that is late, and a notice meanwhile, make two handshakes that cross: each end would take another of the
// two sessions for the newer. So whoever has answered waits before it begins.
func TestNoticeStartsNoHandshakeAcrossOneJustAnswered(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		greater, smaller := l.pair()
		if greater.key.Public().Compare(smaller.key.Public()) < 0 {
			greater, smaller = smaller, greater
		}
		l.net.SetDefault(underlay.Link{Delay: 20 * time.Millisecond})
		var late atomic.Pointer[[]byte]
		var crossed atomic.Bool
		l.net.SetTap(func(from, _ netip.AddrPort, d []byte) []byte {
			switch {
			case wire.KindOf(d) != wire.KindResponse:
			case from == smaller.addr && (late.CompareAndSwap(nil, &d) || bytes.Equal(d, *late.Load())):
				return nil
			case from == greater.addr: // before the session it answers for is confirmed
				l.net.Inject(smaller.addr, greater.addr, *late.Load())
				crossed.Store(true)
			}
			return d
		})
		// The greater restarts, and finds no answer for longer than it insists on its own initiation.
		greater.stop()
		l.net.SetLink(greater.addr, smaller.addr, underlay.Link{Down: true})
		greater.start()
		greater.knows(smaller, at(smaller))
		advance(wire.Precedence + time.Second/2)
		l.net.SetLink(greater.addr, smaller.addr, underlay.Link{Delay: 20 * time.Millisecond})
		for late.Load() == nil {
			advance(10 * time.Millisecond)
		}
		smaller.send(greater, "by the old session") // earns a notice
		advance(500 * time.Millisecond)
		if !crossed.Load() {
			l.net.Inject(smaller.addr, greater.addr, *late.Load())
		}
		advance(time.Second)
		wantsOneSession(greater, smaller)
		greater.wants("by the old session")
	})
}

// Who is ready has told the remote: what others send by a relay then is not refused because the relay has yet to hear of it.
func TestReadyIsWhoHasConfirmedItsSession(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.node("a"), l.node("b")
		confirmed := make(chan bool, 1) // before a was ready?
		l.net.SetTap(func(from, _ netip.AddrPort, d []byte) []byte {
			if from == a.addr && wire.KindOf(d) == wire.KindData {
				select {
				case <-a.engine.Ready():
					confirmed <- false
				default:
					confirmed <- true
				}
				l.net.SetTap(nil)
			}
			return d
		})
		a.knows(b, at(b))
		b.knows(a, "")
		advance(time.Second)
		select {
		case before := <-confirmed:
			if !before {
				t.Error("ready before the session was confirmed")
			}
		default:
			t.Error("no session was confirmed")
		}
		select {
		case <-a.engine.Ready():
		default:
			t.Error("not ready with a session")
		}
	})
}
