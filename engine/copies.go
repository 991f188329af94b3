package engine

import (
	"bytes"
	"time"

	"github.com/adit-overlay/adit/wire"
)

// Copies of an initiation go the way it went while it is not answered: it may have been lost, or the answer. They cost the
// remote less than a new one, and no handshake of its budget (§15). They go in pairs, and so do their answers: on a line that loses
// 30 % in rows of four, one at a time left one session of ten thousand without an answer for ten seconds.
type copies struct {
	msg  []byte
	to   []path
	left int
	due  time.Time // when the next is sent
}

const (
	// copyAfter is how long an initiation, or a pair of copies, is waited for. A remote that is farther away gets copies in vain.
	copyAfter = firstRetry / 4

	// maxCopies of an initiation are sent, and so many are answered.
	maxCopies = 3 * copiesAtOnce

	copiesAtOnce = 2

	// copyFor is how long into an attempt they are sent: who has not answered by then is away, rather than badly heard.
	copyFor = 10 * time.Second
)

// sendCopies sends copies of the initiation that awaits an answer, when they are due.
func (r *Remote) sendCopies(now time.Time) {
	c := r.hs.copies
	if c == nil || now.Before(c.due) {
		return
	}
	c.due = now.Add(copyAfter)
	if c.left -= copiesAtOnce; c.left == 0 {
		r.hs.copies = nil
	}
	if r.yieldsUntil().After(now) {
		return
	}
	for _, p := range c.to {
		for range copiesAtOnce {
			r.engine.send(p, c.msg)
		}
	}
}

// answerCopy is called with an authentic initiation, of that time, that is not newer than the last. It reports whether it has answered it: a copy of
// the last is, as that was, and to nobody else. It is called with mu held.
func (r *Remote) answerCopy(made wire.Timestamp, from path) bool {
	a := &r.keys.answer
	if made != r.hs.accepted || r.keys.next == nil || a.to != from || a.copies == 0 {
		r.engine.drop(DropReplayedHandshake)
		return false
	}
	a.copies--
	r.engine.send(from, a.msg)
	return true
}

// A taken initiation was authentic and new. Its copies are known by their bytes, so that reading them costs no Diffie-Hellman: they come in
// numbers where this end is too busy to answer in time, and from who recorded it.
type taken struct {
	msg  []byte
	by   wire.PublicKey
	made wire.Timestamp
}

// lastTaken are the newest of them. Only the inbox's goroutine touches it.
type lastTaken struct {
	ring [underLoad]taken // as many as wait while nobody needs a cookie
	next int
}

func (t *lastTaken) add(n taken) {
	t.ring[t.next] = n
	t.next = (t.next + 1) % len(t.ring)
}

// find returns what msg is a copy of, or nil.
func (t *lastTaken) find(msg []byte) *taken {
	for i := range t.ring {
		if bytes.Equal(t.ring[i].msg, msg) {
			return &t.ring[i]
		}
	}
	return nil
}

// serveCopy reports whether l needs no reading, being a copy of an initiation just taken.
func (e *Engine) serveCopy(l letter) bool {
	of := e.inbox.taken.find(l.msg)
	if of == nil {
		return false
	}
	r := e.Remote(of.by)
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || of.made.After(r.hs.accepted) {
		return false // the remote was taken away, and maybe added anew
	}
	if r.answerCopy(of.made, l.from) {
		e.inbox.doorkeeper.refund(l)
	}
	return true
}
