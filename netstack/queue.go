package netstack

import (
	"net"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	queueSlots = 512

	// queuePatience is how long a full queue may hold up the stack before it drops. The stack
	// calls with an endpoint's lock held, so this also bounds how long that
	// connection's Close can be held up.
	queuePatience = 100 * time.Millisecond
)

// sendQueue hands packets from the many goroutines of the stack to the one that reads the device.
// It is bounded. A sender that finds it full waits: a drop would collapse the congestion
// window, though the network lost nothing. But it waits for a bounded time only, since a reader
// may have stopped for good. After a wait in vain nobody waits until the reader is back.
type sendQueue struct {
	wake chan struct{} // to the reader: there are packets, or the queue was closed
	room chan struct{} // to one waiting sender: there is room again, or it was closed
	over chan struct{} // closed by close: nobody waits any more

	mu      sync.Mutex
	ring    [queueSlots]*stack.PacketBuffer
	head    int // index of the oldest packet
	n       int
	waiting int  // senders that wait for room
	stalled bool // a sender has waited in vain since the last take
	closed  bool
}

func newSendQueue() *sendQueue {
	return &sendQueue{
		wake: make(chan struct{}, 1),
		room: make(chan struct{}, 1),
		over: make(chan struct{}),
	}
}

// put appends pkt, keeping a reference of its own, and reports whether it did.
func (q *sendQueue) put(pkt *stack.PacketBuffer) bool {
	q.mu.Lock()
	if q.n == queueSlots && !q.awaitRoom() {
		q.mu.Unlock()
		return false
	}
	if q.closed {
		q.mu.Unlock()
		return false
	}
	first := q.n == 0
	q.ring[(q.head+q.n)%queueSlots] = pkt.IncRef()
	q.n++
	if q.waiting > 0 && q.n < queueSlots {
		signal(q.room) // pass it on: one signal stands for all the room a take made
	}
	q.mu.Unlock()
	if first {
		signal(q.wake)
	}
	return true
}

// awaitRoom waits, for a bounded time, until there is a free slot; it reports whether there is. q.mu is
// held on entry and on return.
func (q *sendQueue) awaitRoom() bool {
	if q.stalled || q.closed {
		return false
	}
	q.waiting++
	defer func() { q.waiting-- }()
	timer := time.NewTimer(queuePatience)
	defer timer.Stop()
	for q.n == queueSlots {
		q.mu.Unlock()
		timeout := false
		select {
		case <-q.room:
		case <-q.over:
		case <-timer.C:
			timeout = true
		}
		q.mu.Lock()
		switch {
		case q.closed:
			return false
		case timeout && q.n == queueSlots:
			q.stalled = true
			return false
		}
	}
	return true
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
			q.stalled = false
			if q.n > 0 {
				signal(q.wake) // put signals only the first packet
			}
			if q.waiting > 0 {
				signal(q.room)
			}
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
