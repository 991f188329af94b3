package underlay

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// maxWait is how long a Send may wait for room. A connection in memory or to a near machine takes a
// full queue in well under a millisecond; one that takes longer sets the pace of its own
// datagrams by dropping them, as a router would, and not the pace of the goroutine that sends.
const maxWait = 5 * time.Millisecond

// sendQueue holds frames for the writer of a Stream.
type sendQueue struct {
	limit int // bytes of frames

	mu        sync.Mutex // guards all below
	frames    []byte
	datagrams int           // in frames
	spare     []byte        // what the writer took last, to be filled next
	filled    *sync.Cond    // frames is not empty, or cause is set
	room      chan struct{} // closed when there is room again; nil: nobody waits
	cause     error         // why there will be no more, nil before

	// late says that a Send waited in vain since the writer last took frames. Others then do
	// not try, so that a far end that does not read costs one wait in all.
	late bool
}

func (q *sendQueue) open(limit int) {
	q.limit = limit
	q.filled = sync.NewCond(&q.mu)
}

// put queues the datagrams of m, and returns how many it had to drop. Its error is net.ErrClosed.
func (q *sendQueue) put(m *Message, wait *patience) (dropped int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for rest := m.Buf; len(rest) > 0; {
		n := min(m.Seg, len(rest))
		ok, err := q.makeRoom(frameHeader+n, wait)
		if err != nil {
			return 0, err
		}
		if ok {
			q.frames = appendFrame(q.frames, rest[:n])
			q.datagrams++
			q.filled.Signal()
		} else {
			dropped++
		}
		rest = rest[n:]
	}
	return dropped, nil
}

// makeRoom reports whether n bytes may be queued, if need be after a wait. Needs mu, which it
// gives up while waiting.
func (q *sendQueue) makeRoom(n int, wait *patience) (bool, error) {
	for {
		switch {
		case q.cause != nil:
			return false, sendError(q.cause)
		case len(q.frames)+n <= q.limit:
			return true, nil
		case q.late || wait.over:
			return false, nil
		}
		if q.room == nil {
			q.room = make(chan struct{})
		}
		room := q.room
		q.mu.Unlock()
		wait.until(room)
		q.mu.Lock()
		if wait.over && q.room == room {
			q.late = true
		}
	}
}

// take waits for frames and returns them and how many they are; none when there will be no more.
// They are the caller's until the next take.
func (q *sendQueue) take() (frames []byte, datagrams int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.cause == nil && q.datagrams == 0 {
		q.filled.Wait()
	}
	if q.cause != nil {
		return nil, 0
	}
	frames, datagrams = q.frames, q.datagrams
	q.frames, q.datagrams = q.spare[:0], 0
	q.spare = frames
	q.roomMade()
	return frames, datagrams
}

// end makes err the reason why there will be no more, unless there is one, and returns the reason. What is queued is lost:
// so many datagrams.
func (q *sendQueue) end(err error) (lost int, cause error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.cause == nil {
		q.cause, lost = err, q.datagrams
		q.filled.Broadcast()
		q.roomMade()
	}
	return lost, q.cause
}

// roomMade wakes those who wait. Needs mu.
func (q *sendQueue) roomMade() {
	q.late = false
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
}

// ended returns why there will be no more, or nil.
func (q *sendQueue) ended() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.cause
}

func sendError(cause error) error {
	if cause == net.ErrClosed {
		return cause
	}
	return fmt.Errorf("underlay: send: %w: %w", net.ErrClosed, cause)
}

// patience is how long one Send may still wait. The zero value has not waited yet.
type patience struct {
	timer *time.Timer
	over  bool
}

func (p *patience) until(room <-chan struct{}) {
	if p.timer == nil {
		p.timer = time.NewTimer(maxWait)
	}
	select {
	case <-room:
	case <-p.timer.C:
		p.over = true
	}
}

func (p *patience) stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
}
