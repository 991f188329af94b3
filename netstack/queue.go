package netstack

import (
	"net"
	"slices"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	queueSlots = 512

	// queuePatience is how long the reader may take nothing from a full queue before that drops. The stack calls with an
	// endpoint's lock held, so this also bounds how long that connection's Close is held up by a reader that has stopped.
	queuePatience = 100 * time.Millisecond
)

// sendQueue hands packets from the many goroutines of the stack to the one that reads the device.
// It is bounded. A sender that finds it full waits: a drop would collapse the congestion window, though the network lost
// nothing. Senders wait in a line, thousands of them if as many connections are busy, for as long as the reader goes on. When it
// has taken nothing for a while it may have stopped for good: who waits gives up, and nobody waits until the reader is back.
type sendQueue struct {
	wake chan struct{} // to the reader: there are packets, or the queue was closed
	over chan struct{} // closed by close: nobody waits any more

	mu      sync.Mutex
	ring    [queueSlots]*stack.PacketBuffer
	head    int // index of the oldest packet
	n       int
	takes   uint64          // how often the reader has taken some
	line    []chan struct{} // to the senders that wait for room, the first first: there is some
	stalled bool            // a sender has waited in vain since the last take
	closed  bool
}

func newSendQueue() *sendQueue {
	return &sendQueue{
		wake: make(chan struct{}, 1),
		over: make(chan struct{}),
	}
}

// put appends pkt, keeping a reference of its own, and reports whether it did.
func (q *sendQueue) put(pkt *stack.PacketBuffer) bool {
	q.mu.Lock()
	if (q.n == queueSlots || len(q.line) > 0) && !q.awaitRoom() || q.closed {
		q.mu.Unlock()
		return false
	}
	first := q.n == 0
	q.ring[(q.head+q.n)%queueSlots] = pkt.IncRef()
	q.n++
	q.callFirst() // one call stands for all the room a take made
	q.mu.Unlock()
	if first {
		signal(q.wake)
	}
	return true
}

// awaitRoom waits until those who waited before have had theirs and there is a free slot; it reports whether there is. q.mu is
// held on entry and on return.
func (q *sendQueue) awaitRoom() bool {
	if q.stalled || q.closed {
		return false
	}
	called := make(chan struct{}, 1)
	q.line = append(q.line, called)
	defer q.leave(called)
	timer := time.NewTimer(queuePatience)
	defer timer.Stop()
	for takes := q.takes; ; {
		q.mu.Unlock()
		timeout := false
		select {
		case <-called:
		case <-q.over:
		case <-timer.C:
			timeout = true
		}
		q.mu.Lock()
		switch {
		case q.closed:
			return false
		case q.n < queueSlots && q.line[0] == called:
			return true
		case timeout && q.n == queueSlots && q.takes == takes:
			q.stalled = true
			return false
		case timeout:
			takes = q.takes
			timer.Reset(queuePatience)
		}
	}
}

// callFirst tells the first of the line if there is room for it. q.mu is held.
func (q *sendQueue) callFirst() {
	if len(q.line) > 0 && q.n < queueSlots {
		signal(q.line[0])
	}
}

// leave takes a sender out of the line. q.mu is held.
func (q *sendQueue) leave(called chan struct{}) {
	i := slices.Index(q.line, called)
	if i == 0 {
		q.line[0] = nil
		q.line = q.line[1:]
		return
	}
	q.line = slices.Delete(q.line, i, i+1)
}

// take waits for packets and moves up to len(into) of them there, no more once they have so many bytes. After close it
// returns what is left, and then net.ErrClosed. The references are the caller's to give back.
func (q *sendQueue) take(into []*stack.PacketBuffer, bytes int) (int, error) {
	for {
		q.mu.Lock()
		if q.n > 0 {
			n := 0
			for n < len(into) && q.n > 0 && bytes > 0 {
				into[n] = q.ring[q.head]
				bytes -= into[n].Size()
				n++
				q.ring[q.head] = nil
				q.head = (q.head + 1) % queueSlots
				q.n--
			}
			q.takes++
			q.stalled = false
			if q.n > 0 {
				signal(q.wake) // put signals only the first packet
			}
			q.callFirst()
			q.mu.Unlock()
			return n, nil
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return 0, net.ErrClosed
		}
		<-q.wake
	}
}

// abandoned reports whether the reader has not come back for as long as a sender waits.
func (q *sendQueue) abandoned() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.stalled
}

// close ends the queue once what is in it has been taken. It is called once.
func (q *sendQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	close(q.over)
	signal(q.wake)
}

// signal makes the next receive from c return at once; c has room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
