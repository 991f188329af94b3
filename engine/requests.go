package engine

import (
	"sync"
	"time"

	"github.com/adit-overlay/adit/wire"
)

// requests are questions to relays that await their answers. Each is sent again until it is answered
// or given up.
type requests struct {
	engine *Engine

	mu     sync.Mutex
	next   wire.QuestionID
	open   map[wire.QuestionID]*request
	timer  *time.Timer
	closed bool
}

type request struct {
	relay *Remote
	msg   wire.Control
	done  func(answer wire.Control) // nil: none came
	tries int
	due   time.Time
}

const (
	askAgain    = 250 * time.Millisecond // and twice as long each time
	askTries    = 5
	maxRequests = 1024
)

func (q *requests) init(e *Engine) {
	q.engine = e
	q.open = make(map[wire.QuestionID]*request)
	q.timer = time.AfterFunc(never, q.tick)
}

// ask sends a question to relay and calls done, once, with the answer or nil. done is called by another
// goroutine, holding no lock.
func (q *requests) ask(relay *Remote, question func(wire.QuestionID) wire.Control, now time.Time, done func(wire.Control)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.next++
	req := &request{relay: relay, msg: question(q.next), done: done, due: now}
	if q.closed || len(q.open) >= maxRequests {
		q.engine.goroutine(func() { done(nil) })
		return
	}
	q.open[q.next] = req
	q.timer.Reset(0)
}

// answer hands an answer that came from relay to whoever asked.
func (q *requests) answer(relay *Remote, id wire.QuestionID, m wire.Control) {
	q.mu.Lock()
	req := q.open[id]
	if req == nil || req.relay != relay {
		q.mu.Unlock()
		q.engine.drop(DropUnexpected)
		return
	}
	delete(q.open, id)
	q.mu.Unlock()
	req.done(m)
}

// kick sends what waits for relay at once: there is a new session with it. It may be called
// with the relay's mu held.
func (q *requests) kick(relay *Remote) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, req := range q.open {
		if req.relay == relay {
			req.due, req.tries = time.Now(), max(0, req.tries-1)
		}
	}
	q.timer.Reset(0)
}

// tick sends what is due.
func (q *requests) tick() {
	if !q.engine.begin() {
		return
	}
	defer q.engine.wg.Done()
	now := time.Now()
	var send, failed []*request
	var next time.Time
	q.mu.Lock()
	for id, req := range q.open {
		if !now.Before(req.due) {
			if req.tries == askTries {
				delete(q.open, id)
				failed = append(failed, req)
				continue
			}
			req.due = now.Add(askAgain << req.tries)
			req.tries++
			send = append(send, req)
		}
		next = earliest(next, req.due)
	}
	if !next.IsZero() && !q.closed {
		q.timer.Reset(next.Sub(now))
	}
	q.mu.Unlock()
	for _, req := range send {
		req.relay.Send(req.msg)
		req.relay.waitedFor(now)
	}
	for _, req := range failed {
		req.done(nil)
	}
}

func (q *requests) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.timer.Stop()
	clear(q.open)
}
