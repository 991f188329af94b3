package engine

import (
	"bytes"
	"math"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// takeRows returns how often in a row each message was recorded since the last call.
func (r *recording) takeRows() (rows []int) {
	synctest.Wait()
	var last []byte
	for _, d := range r.take() {
		if !bytes.Equal(d, last) {
			rows = append(rows, 0)
		}
		rows[len(rows)-1]++
		last = d
	}
	return rows
}

// TestALostInitiationIsSentAgainBeforeTheNextIsMade: as it was, twice, a quarter of a second later each time, and no more once it is answered.
func TestALostInitiationIsSentAgainBeforeTheNextIsMade(t *testing.T) {
	const away = 20 * time.Millisecond
	for lost := range 2 * (1 + maxCopies) {
		inFakeTime(t, func(t *testing.T, l *lab) {
			l.net.SetDefault(underlay.Link{Delay: away})
			sent := l.record(wire.KindInitiation)
			sent.lose = lost
			a, b := l.node("a"), l.node("b")
			a.knows(b, at(b))
			b.knows(a, "")
			made := lost/(1+maxCopies) + 1
			pairs := (lost%(1+maxCopies) + 1) / copiesAtOnce // of the last made
			// Retries are a little apart.
			advance(time.Duration(made-1)*(firstRetry+firstRetry/8) + time.Duration(pairs)*copyAfter + 2*away)
			if a.sessionWith(b) == nil {
				t.Errorf("%d initiations lost: no session", lost)
			}
			advance(time.Minute)
			times := sent.takeRows()
			if len(times) != made || times[made-1] != 1+pairs*copiesAtOnce {
				t.Errorf("%d initiations lost: sent %v times", lost, times)
			}
			wantsOneSession(a, b)
		})
	}
}

// TestACopyIsAnsweredAsTheInitiationWas: by the same response, to the same address, for nothing of the remote's budget, and
// not without end. The response is shorter than each of the messages it goes out for.
func TestACopyIsAnsweredAsTheInitiationWas(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.node("b")
		b.knows(a, "")
		answers := l.record(wire.KindResponse)
		initiations := a.initiations(b, 2, time.Millisecond, time.Now())
		wants := func(n int, why string) {
			t.Helper()
			synctest.Wait()
			all := answers.take()
			for _, d := range all {
				if !bytes.Equal(d, all[0]) || len(d) >= len(initiations[0]) {
					t.Errorf("%s: the answers differ, or are long", why)
				}
			}
			if len(all) != n {
				t.Errorf("%s: %d answers, want %d", why, len(all), n)
			}
		}
		l.net.Inject(a.addr, b.addr, initiations[0])
		synctest.Wait()
		for range 5 {
			l.net.Inject(attacker, b.addr, initiations[0])
		}
		wants(1, "copies from elsewhere")
		l.net.Inject(a.addr, b.addr, initiations[0])
		l.net.Inject(a.addr, b.addr, initiations[1])
		l.net.Inject(a.addr, b.addr, initiations[0])
		synctest.Wait()
		if all := answers.take(); len(all) != 2 || bytes.Equal(all[0], all[1]) {
			t.Errorf("a copy, a newer initiation and a copy of the older: %d answers, want one to each of the first two", len(all))
		}
		for range 5 * maxCopies {
			l.net.Inject(a.addr, b.addr, initiations[1])
		}
		wants(maxCopies, "copies without end")
		advance(firstRetry)
		wants(1, "nothing confirms the session")
		if n := b.drops(DropCooldown); n != 0 {
			t.Errorf("%d copies came out of the budget", n)
		}
		for i, d := range a.initiations(b, wire.CooldownBurst-2, time.Millisecond, time.Now()) {
			l.net.Inject(a.addr, b.addr, d)
			synctest.Wait()
			if n := len(answers.take()); n != 1 {
				t.Errorf("initiation %d of the rest of the budget: %d answers", i, n)
			}
		}
	})
}

// TestNoCopiesForWhoIsAwayOrUnderLoad: a remote that has not answered for a while is not there, and one that wants a cookie has enough to do.
func TestNoCopiesForWhoIsAwayOrUnderLoad(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.node("a"), l.plan("b")
		sent := l.record(wire.KindInitiation)
		a.knows(b, at(b))
		advance(copyFor - time.Millisecond)
		if times := sent.takeRows(); len(times) < 3 || times[0] != 1+maxCopies || times[1] != 1+maxCopies {
			t.Errorf("in %v the initiations were sent %v times", copyFor, times)
		}
		advance(lastRetry) // the last with copies
		sent.takeRows()
		advance(time.Minute)
		for _, n := range sent.takeRows() {
			if n != 1 {
				t.Errorf("an initiation was sent %d times after %v", n, copyFor)
			}
		}
	})
	inFakeTime(t, func(t *testing.T, l *lab) {
		l.net.SetDefault(underlay.Link{Delay: copyAfter - time.Millisecond}) // there and back takes longer than a copy waits
		a, b := l.node("a"), l.node("b")
		b.underLoad()
		sent := l.record(wire.KindInitiation)
		b.knows(a, "")
		a.knows(b, at(b))
		advance(5 * copyAfter)
		times := sent.takeRows()
		if b.drops(DropCookie) == 0 || len(times) != 2 || times[1] != 1 {
			t.Errorf("%d were asked for a cookie; initiations were sent %v times, want the one that shows it once", b.drops(DropCookie), times)
		}
		if a.sessionWith(b) == nil {
			t.Error("no session")
		}
	})
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.node("a"), l.node("b")
		b.underLoad()
		sent := l.record(wire.KindInitiation)
		sent.lose = 2 * (1 + maxCopies)
		b.knows(a, "")
		a.knows(b, at(b))
		advance(2 * lastRetry)
		if times := sent.takeRows(); !slices.Equal(times, []int{1 + maxCopies, 1 + maxCopies, 1, 1}) {
			t.Errorf("two initiations lost, then asked for a cookie: sent %v times", times)
		}
		wantsOneSession(a, b)
	})
}

// TestACopyIsKnownWithoutReadingIt: by its bytes, for what it takes to read an initiation is what a busy end has not. A remote that was taken
// away and added anew is not known by what the one before it sent.
func TestACopyIsKnownWithoutReadingIt(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.plan("a"), l.node("b")
		r := b.knows(a, "")
		e := b.engine
		initiations := a.initiations(b, 2, time.Millisecond, time.Now())
		from := path{carrier: e.Carriers()[0], addr: a.addr}
		for i, msg := range initiations {
			l.net.Inject(a.addr, b.addr, msg)
			synctest.Wait()
			if r.keys.next == nil {
				t.Fatal("the initiation is not answered")
			}
			for which, of := range initiations[:i+1] {
				before := b.drops(DropReplayedHandshake)
				copied := letter{msg: bytes.Clone(of), from: path{carrier: from.carrier, addr: attacker}}
				const times = 50
				if n := testing.AllocsPerRun(times, func() { e.serveInitiation(copied, time.Now()) }); n != 0 {
					t.Errorf("%v allocations to know a copy of initiation %d: it is read", n, which)
				}
				if n := b.drops(DropReplayedHandshake) - before; n != times+1 {
					t.Errorf("%d of %d copies of initiation %d are counted", n, times+1, which)
				}
			}
		}
		r.mu.Lock()
		r.forget()
		r.mu.Unlock()
		r = b.knows(a, "")
		l.net.Inject(a.addr, b.addr, initiations[0])
		synctest.Wait()
		if r.keys.next == nil {
			t.Error("a remote that was added anew is judged by what another had sent")
		}
	})
}

// greaterOf returns the two with that of the greater key first.
func greaterOf(a, b *node) (greater, smaller *node) {
	if a.key.Public().Compare(b.key.Public()) > 0 {
		return a, b
	}
	return b, a
}

// TestNoCopyCrossesAHandshakeJustAnswered: an initiation that was under way stays so when one of theirs is answered, for ours may come
// to nothing, but no copy of it goes out before theirs had its time.
func TestNoCopyCrossesAHandshakeJustAnswered(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		greater, smaller := greaterOf(l.plan("a"), l.plan("b"))
		greater.start()
		sent := l.record(wire.KindInitiation)
		greater.knows(smaller, at(smaller))
		advance(2*(firstRetry+firstRetry/8) + time.Millisecond) // the third went out, late enough to let another in
		if times := sent.takeRows(); len(times) != 3 || times[2] > maxCopies {
			t.Fatalf("initiations were sent %v times", times)
		}
		l.net.Inject(smaller.addr, greater.addr, smaller.initiations(greater, 1, 0, time.Now())[0])
		advance(wire.Precedence - 20*time.Millisecond)
		if times := sent.takeRows(); len(times) != 0 {
			t.Errorf("after an answer initiations went out: %v", times)
		}
	})
}

// TestACopyIsNotAnsweredByTheAnswerToAnother: an initiation is dropped that crosses ours, while a session waits that we answered before. The
// copies of the one are not for the answer of the other.
func TestACopyIsNotAnsweredByTheAnswerToAnother(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		greater, smaller := greaterOf(l.plan("a"), l.plan("b"))
		greater.start()
		r := greater.knows(smaller, "")
		answers := l.record(wire.KindResponse)
		initiations := smaller.initiations(greater, 2, time.Millisecond, time.Now())
		l.net.Inject(smaller.addr, greater.addr, initiations[0])
		advance(wire.Precedence)
		if n := len(answers.take()); n != 2 { // and once more, for nothing confirms the session
			t.Fatalf("%d answers", n)
		}
		r.mu.Lock()
		r.paths.addrs = []netip.AddrPort{smaller.addr}
		r.startHandshake(time.Now())
		r.wake()
		r.mu.Unlock()
		synctest.Wait()
		for range 2 {
			l.net.Inject(smaller.addr, greater.addr, initiations[1])
			synctest.Wait()
		}
		if n := len(answers.take()); n != 0 || greater.drops(DropCrossed) != 1 || greater.drops(DropReplayedHandshake) != 1 {
			t.Errorf("%d answers; drops %v", n, greater.engine.Stats().Drops)
		}
	})
}

// underLoad has n want a cookie of everybody, for good.
func (n *node) underLoad() {
	k := &n.engine.inbox.doorkeeper
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unproven = budget{spent: math.Inf(1), at: time.Now()}
}
