package engine

import (
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/wire"
)

// initiating is our attempt at a new session (§5, §16).
type initiating struct {
	active bool
	since  time.Time // when the attempt began
	tries  int       // initiations sent in it
	due    time.Time // when the next one is sent

	pending *wire.Initiation // the last one sent; nil when none awaits a response
	index   wire.Index
	shows   bool // it shows a cookie
	refused bool // it was answered by a cookie, and is not waited for
	sent    time.Time
	copies  *copies // of it, to send; nil when there are no more

	earlier  []superseded  // those before it in this attempt, oldest first
	patience time.Duration // how long the last is waited for at least: an earlier one was answered after so long

	cookie    *wire.Cookie   // what the remote gave us, and stamps it
	timestamp wire.Timestamp // of the last initiation; each must be later
	tried     time.Time      // when we last sent one, or would have
	prompted  time.Time      // when a notice last made us begin
	noticed   time.Time      // when a notice last said that our session is not known
	shown     time.Time      // when a challenge last made us show our address

	// As responder.
	accepted wire.Timestamp // of the last initiation of theirs that we took
	budget   budget         // how many more we take
	stale    budget         // how many more of those that were not made just now
}

// A superseded initiation is one that another has taken the place of. Its index is kept for what its answer tells: how long
// answers take.
type superseded struct {
	index wire.Index
	sent  time.Time
}

// Between initiations that are not answered. Loss is the common reason, so the first come quickly.
const (
	firstRetry = time.Second
	lastRetry  = 3 * time.Second

	// hurriedRetry is how long at most while packets wait, and relayRetry how long for a relay, by which others are found: so
	// that packets flow two seconds after both are back, also if the one who speaks finds the relay just before the other does,
	// and its first initiation is lost. That is both times, an eighth of relayRetry (retryAfter), and some round trips.
	hurriedRetry = time.Second
	relayRetry   = time.Second / 2

	// maxEarlier are sent within lastRetry, the longest that an answer is waited for.
	maxEarlier = int(lastRetry / relayRetry)

	// giveUp is how long a remote that nothing is kept up with is tried.
	giveUp = 90 * time.Second
)

func (h *initiating) deadline() time.Time {
	if !h.active {
		return time.Time{}
	}
	if h.copies != nil {
		return earliest(h.due, h.copies.due)
	}
	return h.due
}

// startHandshake begins an attempt at a new session, unless one is under way. It is called with mu held.
func (r *Remote) startHandshake(now time.Time) {
	if r.hs.active {
		return
	}
	r.hs.active, r.hs.since, r.hs.tries, r.hs.due, r.hs.patience = true, now, 0, now, 0
}

// cancelInitiation ends the attempt. A response that still comes finds nothing.
func (r *Remote) cancelInitiation() {
	if r.hs.pending != nil {
		r.hs.pending.Wipe()
		r.hs.pending, r.hs.copies = nil, nil
		r.engine.indexes.release(r.hs.index)
	}
	for _, i := range r.hs.earlier {
		r.engine.indexes.release(i.index)
	}
	r.hs.earlier = nil
	r.hs.active = false
}

// advanceHandshake sends the next initiation when it is due.
func (r *Remote) advanceHandshake(now time.Time) {
	h := &r.hs
	if !h.active {
		return
	}
	if now.Before(h.due) {
		r.sendCopies(now)
		return
	}
	if t := r.yieldsUntil(); t.After(now) {
		h.due = t
		return
	}
	if now.Sub(h.since) >= giveUp && !r.keepUp() {
		r.cancelInitiation()
		r.engine.log.Info("no answer", "remote", r.label(), "for", now.Sub(h.since).Round(time.Second))
		return
	}
	targets := r.targets(h.tries, now)
	h.tries++
	h.tried = now
	h.due = now.Add(r.retryAfter())
	if len(targets) == 0 {
		return
	}
	msg, err := r.initiate(now)
	if err != nil {
		r.engine.log.Error("initiation", "remote", r.label(), "error", err)
		return
	}
	if !h.shows && now.Sub(h.since) < copyFor {
		h.copies = &copies{msg, targets, maxCopies, now.Add(copyAfter)}
	}
	for _, p := range targets {
		r.engine.send(p, msg)
	}
}

// yieldsUntil is before when no handshake of ours is sent. A session we have answered a moment ago, and that waits to
// be confirmed, goes first: of two handshakes that cross, each end would take another for the newer (§17, §18).
func (r *Remote) yieldsUntil() time.Time {
	if r.keys.next == nil {
		return time.Time{}
	}
	return r.keys.next.established.Add(wire.Precedence)
}

// hurry makes the next initiation of an attempt due sooner: somebody has something to send. It is called with mu held.
func (r *Remote) hurry(now time.Time) {
	h := &r.hs
	due := h.tried.Add(max(hurriedRetry, h.patience))
	if t := r.yieldsUntil(); t.After(due) {
		due = t
	}
	if h.active && due.Before(h.due) {
		h.due = due
		r.wake()
	}
}

// retryAfter is how long an initiation is waited for: a second for the first few, then more up to three, so that whoever comes
// back is found within five, and a relay sooner. Each time is a little different so that two ends do
// not keep step.
func (r *Remote) retryAfter() time.Duration {
	d, last := firstRetry, lastRetry
	if r.relay {
		last = relayRetry
	}
	if n := r.hs.tries; n > 4 {
		d = min(last, firstRetry*time.Duration(n-3))
	}
	return max(d+r.engine.jitter.upTo(d/8), r.hs.patience)
}

// jitter is chance that need not be secret.
type jitter struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (j *jitter) init(random io.Reader) {
	var seed [32]byte
	io.ReadFull(random, seed[:]) // a short seed is a seed too
	j.r = rand.New(rand.NewChaCha8(seed))
}

// upTo returns a duration from 0 up to d.
func (j *jitter) upTo(d time.Duration) time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	return time.Duration(j.r.Int64N(int64(d)))
}

// initiate makes an initiation that replaces the one pending.
func (r *Remote) initiate(now time.Time) (msg []byte, err error) {
	h, e := &r.hs, r.engine
	if h.pending != nil {
		h.pending.Wipe()
		h.pending, h.copies = nil, nil
		h.earlier = append(h.earlier, superseded{h.index, h.sent})
		if len(h.earlier) > maxEarlier {
			e.indexes.release(h.earlier[0].index)
			h.earlier = slices.Delete(h.earlier, 0, 1)
		}
	}
	ts := e.cfg.WallClock()
	if !wire.TimestampAt(ts).After(h.timestamp) {
		ts = h.timestamp.Time().Add(time.Nanosecond) // the clock stood still, or was set back
	}
	index := e.indexes.reserve(r, e.cfg.Random)
	i, msg, err := e.local.Initiate(e.cfg.Random, r.key, r.psk, index, ts, nil)
	if err != nil {
		e.indexes.release(index)
		return nil, err
	}
	h.pending, h.index, h.sent, h.timestamp = i, index, now, wire.TimestampAt(ts)
	h.shows, h.refused = h.cookie.Stamp(msg, now), false
	return msg, nil
}

// receiveResponse takes the answer to our initiation.
func (r *Remote) receiveResponse(msg []byte, from path, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.hs.pending == nil {
		r.engine.drop(DropUnexpected)
		return
	}
	keys, err := r.hs.pending.Finish(msg)
	if errors.Is(err, wire.ErrIndex) {
		r.answeredLate(msg, now)
	}
	if err != nil {
		r.engine.dropHandshake(err)
		return
	}
	r.hs.pending, r.hs.copies = nil, nil
	s := newSession(r, &keys, true, now)
	r.engine.indexes.promote(s)
	r.activate(s, from, now)
	r.schedule(now)
}

// answeredLate looks whether msg answers an initiation that another has taken the place of: there and back takes longer than was
// waited. One more would take the place, at the remote, of the session that the last one makes there (§15), and
// so for ever. So the last is given the time that the earlier took. It is called with mu held.
func (r *Remote) answeredLate(msg []byte, now time.Time) {
	h := &r.hs
	to, _ := wire.ReceiverOf(msg)
	i := slices.IndexFunc(h.earlier, func(s superseded) bool { return s.index == to })
	if i < 0 {
		return
	}
	h.patience = max(h.patience, min(now.Sub(h.earlier[i].sent)+firstRetry/16, lastRetry))
	r.engine.indexes.release(to)
	h.earlier = slices.Delete(h.earlier, i, i+1) // the answer may come again, and says no more
	if due := h.sent.Add(h.patience); !h.refused && h.due.Before(due) {
		h.due = due
	}
	r.schedule(now)
}

// receiveCookie takes the cookie that a remote under load asks us to show. The next initiation
// does.
func (r *Remote) receiveCookie(msg []byte, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.hs.pending == nil || r.hs.cookie.Open(msg, now) != nil {
		r.answeredLate(msg, now)
		r.engine.drop(DropUnexpected)
		return
	}
	r.hs.copies = nil // they would not show it
	// The next goes at once, but not to a remote that was just shown its cookie: that is asked less often, by the timer. A
	// cookie that we had before may be for another address of ours.
	if r.hs.active && (!r.hs.shows || r.hs.tries == 1) {
		r.hs.refused = true
		r.hs.due = now
		r.wake()
	}
}

// receiveNotice is told that the remote does not hold our session: it has restarted, or somebody
// says so. It is not authenticated, so the session stays until there is a better one.
func (r *Remote) receiveNotice(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hs.noticed = now
	if r.closed || now.Sub(r.hs.prompted) < wire.NoticeInterval {
		return
	}
	r.hs.prompted = now
	r.startHandshake(now)
	if now.Sub(r.hs.tried) >= max(inFlight, r.hs.patience) {
		r.hs.due = now // what was sent to nobody need not be waited for: there is somebody now
	}
	r.wake()
}

// inFlight is how long an initiation may be answered yet, on nearly all paths.
const inFlight = firstRetry / 2

// serveInitiation answers an initiation that has passed the filters of the inbox.
func (e *Engine) serveInitiation(l letter, now time.Time) {
	if relay := l.from.relay; relay != nil && !relay.hasKeysSince(l.received, now) {
		// It lay in our socket while we did not run, say. The circuit has ended with the session, so no answer would
		// arrive, and having given one would hold up a handshake of ours. The relay's answer to a new handshake
		// overtakes it in the inbox.
		e.drop(DropCircuit)
		return
	}
	if e.serveCopy(l) {
		return
	}
	req, err := e.local.ReadInitiation(l.msg)
	if err != nil {
		e.dropHandshake(err)
		return
	}
	r := e.Remote(req.Remote)
	if r == nil {
		e.drop(DropUnknownKey)
		e.lookups.meet(req.Remote, l, now)
		return
	}
	if r.receiveInitiation(req, l.from, now) {
		e.inbox.doorkeeper.refund(l)
		e.inbox.taken.add(taken{l.msg, req.Remote, req.Timestamp})
	}
}

// receiveInitiation reports whether req was made by the remote now, as far as can be known: not whether it is answered.
func (r *Remote) receiveInitiation(req *wire.Request, from path, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, h := r.engine, &r.hs
	switch {
	case r.closed:
		e.drop(DropUnknownKey)
		return false
	case !req.Timestamp.After(h.accepted):
		return r.answerCopy(req.Timestamp, from)
	case !h.budgetFor(req.Timestamp, e.cfg.WallClock()).take(now, wire.Cooldown, wire.CooldownBurst):
		e.drop(DropCooldown)
		return false
	}
	h.accepted = req.Timestamp
	r.keys.answer.copies = 0 // it is not to this one
	if h.pending != nil {
		// Both began at once. The greater key's initiation goes first (§18): the smaller key's owner forgets
		// its own. The greater's lets the other in when its own has found no answer for a while,
		// and keeps that, for the other may be forgetting its own at this moment.
		switch greater := e.PublicKey().Compare(r.key) > 0; {
		case !greater:
			r.cancelInitiation()
		case now.Sub(h.since) < wire.Precedence:
			e.drop(DropCrossed)
			return true
		}
	}
	index := e.indexes.reserve(r, e.cfg.Random)
	msg, keys, err := req.Respond(e.cfg.Random, r.psk, index)
	if err != nil {
		e.indexes.release(index)
		e.dropHandshake(err)
		return true
	}
	s := newSession(r, &keys, false, now)
	e.indexes.promote(s)
	h.cookie.Stamp(msg, now)
	r.offer(s, answer{msg, from, now.Add(inFlight), maxCopies}, now)
	if from.relay != nil {
		r.adoptCircuit(from)
	}
	if r.current.Load() == nil && r.wanted(now) {
		r.startHandshake(now) // in a while, should this one come to nothing
	}
	r.schedule(now)
	e.reaching(from)
	e.send(from, msg)
	return true
}

// budgetFor returns what an initiation of that time is taken from. Recordings, which are new to us if we have restarted, must
// not use up what their maker needs now.
func (h *initiating) budgetFor(made wire.Timestamp, wall time.Time) *budget {
	if wall.Sub(made.Time()).Abs() < wire.Fresh {
		return &h.budget
	}
	return &h.stale
}

func (e *Engine) dropHandshake(err error) {
	switch {
	case errors.Is(err, wire.ErrMAC1):
		e.drop(DropMAC1)
	case errors.Is(err, wire.ErrMalformed):
		e.drop(DropMalformed)
	case errors.Is(err, wire.ErrIndex):
		e.drop(DropUnexpected)
	default:
		e.drop(DropHandshakeForged)
	}
}

// unreachable tells whoever sent the packets we hold that they will not be delivered.
func (r *Remote) unreachable(why packet.Unreachable) {
	for _, p := range r.held.take() {
		r.engine.drop(DropHeld)
		r.engine.refuse(p.bytes, why)
	}
}
