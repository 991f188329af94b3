package engine

import (
	"slices"
	"time"

	"github.com/adit-overlay/adit/wire"
)

// A keyring holds the sessions beside the current one (§17).
type keyring struct {
	previous      *session // opens what was still under way when it was replaced
	previousUntil time.Time

	next      *session // answered by us, not yet confirmed
	nextUntil time.Time
	answer    answer // by which we answered it

	former []former // sessions that are over for us, oldest first
}

// An answer is a response that is sent once more if nothing has confirmed its session by then, and for each copy of the
// initiation that comes until then: it may have been lost, and the next initiation comes later, and costs both ends a
// handshake.
type answer struct {
	msg    []byte
	to     path
	due    time.Time // zero once it was
	copies int       // how many copies of the initiation are answered yet
}

// A former session is over for us, and the other end may not know it yet. Its index is kept, and nothing else, for
// what still comes by it earns no notice: a notice says that we have restarted, and the other end would
// send again what we have had (§10, §19).
type former struct {
	index wire.Index
	until time.Time
}

const (
	maxFormer = 8 // of a remote; each cost a handshake

	// outlived is how much longer the other end may seal by a session than we open it: it took it for made
	// when the response came, and what it sent last is under way.
	outlived = 10 * time.Second
)

// unconfirmedFor is how long a responder waits for the first packet of a session.
const unconfirmedFor = 30 * time.Second

// The ages of a session scale with Config.RekeyAfter.
func (e *Engine) rekeyAfter(s *session) time.Duration {
	if s.initiator {
		return e.cfg.RekeyAfter
	}
	return e.cfg.RekeyAfter + scaled(e, wire.TakeOver)
}
func (e *Engine) rejectAfter() time.Duration { return scaled(e, wire.RejectAfter) }

func scaled(e *Engine, d time.Duration) time.Duration {
	return time.Duration(float64(d) * (float64(e.cfg.RekeyAfter) / float64(wire.RekeyAfter)))
}

// activate makes s, now confirmed, the session that seals, on path p. What was current opens for a
// while longer. It is called with mu held.
func (r *Remote) activate(s *session, p path, now time.Time) {
	r.cancelInitiation()
	r.retire(r.keys.previous)
	r.keys.previous, r.keys.previousUntil = r.current.Load(), now.Add(wire.KeepPrevious)
	first := r.keys.previous == nil
	s.unbroken = s.established
	if before := r.keys.previous; before != nil && now.Sub(before.established) < r.engine.rejectAfter() {
		s.unbroken = before.unbroken
	}
	if have := r.path.Load(); !first && have != nil && *have != p {
		// A new place, or a second process with the same key: that one shows by going back and forth.
		r.logPath(have, p, now)
	}
	r.setPath(p)
	if p.carrier != nil && !p.addr.IsValid() {
		r.engine.goroutine(func() { r.engine.linkIs(p.carrier, r) })
	}
	// What waited for the session goes out before anything the device's reader sends by it.
	flushed := r.resendUnheard(s, now)
	flushed = r.flushHeld(s, now) || flushed
	r.current.Store(s)
	r.sendPings(s, now)
	if first {
		r.engine.log.Info("session", "remote", r.label(), "path", p.String())
	}
	r.life.reset(now)
	if s.initiator && !flushed {
		// Confirms the session to the responder; see advanceLiveness for when it gets lost.
		r.sendProbe(s, now)
	}
	if r.relay {
		r.engine.requests.kick(r)
	}
	// Now that the remote is on its way to know it, too: a relay would say of who is ready that nobody is there.
	r.engine.readyOnce.Do(func() { close(r.engine.ready) })
	// Not wake: to move a timer forward costs the runtime a walk over all there are, and a relay has many.
	r.schedule(now)
}

// confirm is called with the first packet of a session that we answered.
func (r *Remote) confirm(s *session, p path, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys.next != s || r.closed {
		return
	}
	r.keys.next, r.keys.answer = nil, answer{}
	s.confirmed.Store(true)
	if have := r.current.Load(); have != nil && have.established.After(s.established) {
		// Meanwhile we made a newer one ourselves. Both ends made the two in the same order, so
		// both take the newer, and this one opens what is still under way.
		r.retire(r.keys.previous)
		r.keys.previous, r.keys.previousUntil = s, now.Add(wire.KeepPrevious)
		return
	}
	r.activate(s, p, now)
}

// offer keeps s, which we have just answered, until it is confirmed. It is called with mu held.
func (r *Remote) offer(s *session, by answer, now time.Time) {
	r.retire(r.keys.next)
	r.keys.next, r.keys.nextUntil, r.keys.answer = s, now.Add(unconfirmedFor), by
}

// retire ends a session; nil is fine.
func (r *Remote) retire(s *session) {
	if s == nil {
		return
	}
	s.retired.Store(true)
	s.sealer.Retire()
	s.opener.Retire()
	if !s.heard.Load() { // nothing arrived by it that could arrive twice
		r.engine.indexes.release(s.local)
		return
	}
	r.engine.indexes.bury(s)
	k := &r.keys
	k.former = append(k.former, former{index: s.local, until: s.established.Add(r.engine.rejectAfter() + outlived)})
	if len(k.former) > maxFormer {
		r.releaseFormer(1)
	}
}

// releaseFormer forgets the first n of the former sessions.
func (r *Remote) releaseFormer(n int) {
	for _, f := range r.keys.former[:n] {
		r.engine.indexes.release(f.index)
	}
	r.keys.former = slices.Delete(r.keys.former, 0, n)
}

// dropSessions forgets all keys. It is called with mu held.
func (r *Remote) dropSessions() {
	r.retire(r.current.Swap(nil))
	r.retire(r.keys.previous)
	r.retire(r.keys.next)
	r.releaseFormer(len(r.keys.former))
	r.keys = keyring{}
}

// advanceKeys ends sessions that are past their time and asks for new keys when it is time.
func (r *Remote) advanceKeys(now time.Time) {
	if r.keys.previous != nil && !now.Before(r.keys.previousUntil) {
		r.retire(r.keys.previous)
		r.keys.previous = nil
	}
	if a := &r.keys.answer; !a.due.IsZero() && !now.Before(a.due) {
		r.engine.send(a.to, a.msg)
		a.due = time.Time{}
	}
	if r.keys.next != nil && !now.Before(r.keys.nextUntil) {
		r.retire(r.keys.next)
		r.keys.next, r.keys.answer = nil, answer{}
		if r.path.Load() == nil && r.wanted(now) {
			r.startHandshake(now)
		}
	}
	for len(r.keys.former) > 0 && !now.Before(r.keys.former[0].until) {
		r.releaseFormer(1)
	}
	s := r.current.Load()
	if s == nil {
		return
	}
	age := now.Sub(s.established)
	if age >= r.engine.rejectAfter() {
		r.retire(s)
		r.current.Store(nil)
		r.engine.log.Info("session ended", "remote", r.label())
		if r.wanted(now) {
			r.startHandshake(now)
		}
		return
	}
	if r.keys.next == nil && (age >= r.engine.rekeyAfter(s) && r.wanted(now) || s.sealer.Reserved() >= wire.RekeyAfterPackets) {
		r.startHandshake(now)
	}
}

func (r *Remote) keysDeadline() time.Time {
	var due time.Time
	if r.keys.previous != nil {
		due = earliest(due, r.keys.previousUntil)
	}
	if r.keys.next != nil {
		due = earliest(due, r.keys.nextUntil, r.keys.answer.due)
	}
	if len(r.keys.former) > 0 {
		due = earliest(due, r.keys.former[0].until)
	}
	if s := r.current.Load(); s != nil {
		due = earliest(due, s.established.Add(r.engine.rejectAfter()))
		if !r.hs.active && r.keys.next == nil {
			if t := s.established.Add(r.engine.rekeyAfter(s)); r.life.lastTick.Before(t) {
				due = earliest(due, t)
			}
		}
	}
	return due
}
