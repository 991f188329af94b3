package engine

import (
	"io"
	"sync/atomic"
	"time"

	"github.com/adit-overlay/adit/wire"
)

// liveness knows whether a remote still hears us. The way of packets notes what it sends and
// receives; the timer draws the conclusions: a keepalive when it has been quiet, a probe when
// something sent finds no echo, a new handshake when the probes find none either.
type liveness struct {
	epoch time.Time // when the remote became known; never changes

	// Nanoseconds since epoch; 0 means never.
	sent       atomic.Int64 // anything
	received   atomic.Int64 // anything authentic
	data       atomic.Int64 // a packet, either way
	unanswered atomic.Int64 // the first packet or probe sent since something was received

	// awake: something moved of late, and the timer looks after us every poll.
	awake atomic.Bool

	// Under the remote's mu.
	lastTick  time.Time
	probe     wire.Token
	probedAt  time.Time // when the last probe went out; zero when it was answered
	nextProbe time.Time
	rtt       time.Duration
}

const (
	poll       = time.Second      // how often an awake remote is looked after
	sleepAfter = 10 * time.Second // without packets

	probeAfter = 2 * time.Second // of hearing nothing in return
	probeEvery = time.Second
	deadAfter  = 5 * time.Second // of hearing nothing in return, probes included

	// A relay that restarts forgets where everybody is, and can tell only those who send to it. Who
	// used it of late, and waits for others to send, asks it often whether it still knows us.
	relayedFor     = time.Minute
	relayKeepalive = 3 * time.Second

	// wantedFor is how long after its last packet a session is kept alive and renewed.
	wantedFor = 3 * time.Minute
)

func (l *liveness) stamp(t time.Time) int64 { return max(1, int64(t.Sub(l.epoch))) }
func (l *liveness) time(n int64) time.Time  { return l.epoch.Add(time.Duration(n)) }

// What was sent or received: a packet; a question, which wants an answer; or neither.
type traffic uint8

const (
	quiet traffic = iota
	question
	data
)

// noteSent is called once for a run of what was sealed for the remote.
func (r *Remote) noteSent(now time.Time, what traffic) {
	l := &r.life
	t := l.stamp(now)
	l.sent.Store(t)
	if what >= question && l.unanswered.Load() == 0 {
		l.unanswered.Store(t)
	}
	if what == data {
		r.noteData(t)
	}
}

// noteReceived is called once for a run of what was authentic.
func (r *Remote) noteReceived(now time.Time, what traffic) {
	l := &r.life
	t := l.stamp(now)
	l.received.Store(t)
	if l.unanswered.Load() != 0 {
		l.unanswered.Store(0)
	}
	r.heard()
	if what == data {
		r.noteData(t)
	}
}

func (r *Remote) noteData(t int64) {
	l := &r.life
	l.data.Store(t)
	if !l.awake.Load() && !l.awake.Swap(true) {
		r.wake()
	}
}

// reset begins anew with a new session.
func (l *liveness) reset(now time.Time) {
	l.received.Store(l.stamp(now))
	l.unanswered.Store(0)
	l.probedAt, l.nextProbe = time.Time{}, now.Add(probeEvery)
}

func (l *liveness) receivedAt() time.Time {
	if n := l.received.Load(); n != 0 {
		return l.time(n)
	}
	return time.Time{}
}

func (l *liveness) latest() time.Time {
	return l.time(max(l.sent.Load(), l.received.Load()))
}

// answers: there is a session, and nothing has been unanswered for long.
func (r *Remote) answers(now time.Time) bool {
	n := r.life.unanswered.Load()
	return r.current.Load() != nil && (n == 0 || now.Sub(r.life.time(n)) < deadAfter)
}

// hasKeysSince: there is a session with this remote whose time is not over, and has been since then without a gap.
func (r *Remote) hasKeysSince(then, now time.Time) bool {
	s := r.current.Load()
	return s != nil && !s.unbroken.After(then) && now.Sub(s.established) < r.engine.rejectAfter()
}

// keepUp: a session with this remote is kept at all times.
func (r *Remote) keepUp() bool { return r.relay || r.paths.endpoint != "" || len(r.paths.links) > 0 }

// wanted: a session with this remote is worth renewing.
func (r *Remote) wanted(now time.Time) bool {
	if r.keepUp() || r.held.waiting() {
		return true
	}
	n := r.life.data.Load()
	return n != 0 && now.Sub(r.life.time(n)) < wantedFor
}

// keepalive is how long we are quiet before the remote hears of us.
func (r *Remote) keepalive(now time.Time) time.Duration {
	every := r.engine.cfg.Keepalive
	if n := r.life.data.Load(); r.relay && n != 0 && now.Sub(r.life.time(n)) < relayedFor {
		return min(every, relayKeepalive)
	}
	return every
}

// advanceLiveness is called with mu held.
func (r *Remote) advanceLiveness(now time.Time) {
	l := &r.life
	l.lastTick = now
	if n := l.data.Load(); l.awake.Load() && now.Sub(l.time(n)) >= sleepAfter {
		l.awake.Store(false)
	}
	s := r.current.Load()
	if s == nil {
		if r.keepUp() && r.keys.next == nil {
			r.startHandshake(now)
		}
		return
	}
	if s.initiator && !s.heard.Load() {
		// The responder may not know yet that the session is made, whatever it says by the one before.
		if now.Sub(s.established) >= deadAfter {
			r.startHandshake(now)
		}
		if !now.Before(l.nextProbe) {
			r.sendProbe(s, now)
		}
	}
	if n := l.unanswered.Load(); n != 0 {
		silence := now.Sub(l.time(n))
		if silence >= deadAfter && r.wanted(now) {
			r.startHandshake(now)
		}
		if silence >= probeAfter && !now.Before(l.nextProbe) {
			r.sendProbe(s, now)
			r.mtu.doubt(now)
		}
	}
	if r.wanted(now) && !now.Before(r.keepaliveDue(now)) {
		r.sendProbe(s, now) // rather than an empty keepalive: its answer shows that the path works
	}
}

// keepaliveDue is when the remote is to hear of us. A probe that could not be sent, for want of counters or of a path, is tried
// again no sooner than another would be.
func (r *Remote) keepaliveDue(now time.Time) time.Time {
	l := &r.life
	due := l.time(l.sent.Load()).Add(r.keepalive(now))
	if due.Before(l.nextProbe) {
		return l.nextProbe
	}
	return due
}

func (r *Remote) livenessDeadline(now time.Time) time.Time {
	l := &r.life
	s := r.current.Load()
	if s == nil {
		return time.Time{}
	}
	var due time.Time
	if l.awake.Load() {
		due = now.Add(poll)
	}
	if r.wanted(now) {
		due = earliest(due, r.keepaliveDue(now))
	}
	if s.initiator && !s.heard.Load() {
		due = earliest(due, l.nextProbe)
	}
	if n := l.unanswered.Load(); n != 0 {
		t := l.time(n).Add(probeAfter)
		if t.Before(l.nextProbe) {
			t = l.nextProbe
		}
		due = earliest(due, t)
	}
	return due
}

// sendProbe asks the remote to answer, on the path in use.
func (r *Remote) sendProbe(s *session, now time.Time) {
	l := &r.life
	io.ReadFull(r.engine.cfg.Random, l.probe[:])
	l.probedAt, l.nextProbe = now, now.Add(probeEvery)
	r.sendControl(s, wire.Probe{Token: l.probe}, now)
}

func (r *Remote) receiveProbeReply(m wire.ProbeReply, from path, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pingAnswered(m.Token, from, now) {
		return
	}
	if l := &r.life; m.Token == l.probe && !l.probedAt.IsZero() {
		l.rtt = now.Sub(l.probedAt)
		l.probedAt = time.Time{}
		return
	}
	r.probeAnswered(m.Token, now)
}
