package netstack

import (
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/waiter"
)

// A waitPoint is where callers of one kind of operation on one endpoint (its reads, its writes) wait. One
// caller at a time holds turn, so that the single signal of event is never taken by
// another.
type waitPoint struct {
	turn     sync.Mutex
	entry    waiter.Entry
	event    chan struct{} // has room for one; the stack signals that trying again may do
	deadline deadline
}

// watch makes events of the queue wake the waiting caller. Nothing is allocated for
// waiting later on.
func (w *waitPoint) watch(q *waiter.Queue, events waiter.EventMask) {
	w.entry, w.event = waiter.NewChannelEntry(events)
	q.EventRegister(&w.entry)
}

// wait returns nil when it is worth while to try again, and otherwise why not.
func (w *waitPoint) wait(closed <-chan struct{}, errClosed error) error {
	select {
	case <-w.event:
		return nil
	case <-w.deadline.passed():
		return timeoutError{}
	case <-closed:
		return errClosed
	}
}

// ready returns why an operation must not even be tried.
func (w *waitPoint) ready(closed <-chan struct{}, errClosed error) error {
	select {
	case <-closed:
		return errClosed
	default:
	}
	select {
	case <-w.deadline.passed():
		return timeoutError{}
	default:
		return nil
	}
}

// A deadline is a time that can be moved, even from the past back into the future. The zero value
// is one that never passes.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	over  chan struct{} // closed when the deadline passes; made when first needed
}

// passed returns a channel that is closed when the deadline, as it is now, has passed. A caller that waits
// for it learns of an earlier deadline set meanwhile too.
func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over == nil {
		d.over = make(chan struct{})
	}
	return d.over
}

// set moves the deadline to t; the zero time is never.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over == nil {
		d.over = make(chan struct{})
	}
	if d.timer != nil && !d.timer.Stop() {
		<-d.over // it fired, and is about to close this channel or has done so
	}
	d.timer = nil
	select {
	case <-d.over:
		d.over = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	if left := time.Until(t); left > 0 {
		over := d.over
		d.timer = time.AfterFunc(left, func() { close(over) })
		return
	}
	close(d.over)
}
