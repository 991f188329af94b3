package engine

import "time"

// Copies of an initiation go the way it went while it is not answered: it may have been lost, or the answer. They cost the
// remote less than a new one, and no handshake of its budget (§15).
type copies struct {
	msg  []byte
	to   []path
	left int
	due  time.Time // when the next is sent
}

const (
	// copyAfter is how long an initiation, or a copy, is waited for. A remote that is farther away gets copies in vain.
	copyAfter = firstRetry / 4

	// maxCopies of an initiation are sent, and so many are answered.
	maxCopies = 3

	// copyFor is how long into an attempt they are sent: who has not answered by then is away, rather than badly heard.
	copyFor = 10 * time.Second
)

// sendCopy sends the initiation that awaits an answer once more, when that is due.
func (r *Remote) sendCopy(now time.Time) {
	c := r.hs.copies
	if c == nil || now.Before(c.due) {
		return
	}
	c.due = now.Add(copyAfter)
	if c.left--; c.left == 0 {
		r.hs.copies = nil
	}
	if r.yieldsUntil().After(now) {
		return
	}
	for _, p := range c.to {
		r.engine.send(p, c.msg)
	}
}

// answerCopy reports whether it has answered a copy of the last initiation: as that was answered, and to nobody else. It is
// called with mu held.
func (r *Remote) answerCopy(from path) bool {
	a := &r.keys.answer
	if r.keys.next == nil || a.to != from || a.copies == 0 {
		return false
	}
	a.copies--
	r.engine.send(from, a.msg)
	return true
}
