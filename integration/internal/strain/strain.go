// Package strain tells how late a machine is: how long a process that is to run waits for a processor. How soon something happened on a
// machine that is busy with other things says nothing about an overlay, and who judges times asks here first whether they can be judged.
package strain

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// Lag is how late a machine may be once for the seconds that something took to count.
	Lag = 100 * time.Millisecond

	// Share of the time waited for a processor beyond which a machine loses datagrams by itself, since sockets' buffers are full before
	// anybody reads them, and all that takes several steps is late.
	Share = 0.1
)

// A Reading is how late the machine was in some time.
type Reading struct {
	Worst time.Duration // the longest wait for a processor
	Share float64       // of the time, in which who was to run waited
}

// Strained reports whether the machine as a whole had more to do than it could.
func (r Reading) Strained() bool { return r.Share > Share }

// Busy reports whether seconds do not count: the machine was strained, or late once.
func (r Reading) Busy() bool { return r.Strained() || r.Worst > Lag }

func (r Reading) String() string {
	return fmt.Sprintf("waiting for a processor %.0f %% of the time, %d ms at most", 100*r.Share, r.Worst.Milliseconds())
}

const (
	tick = 10 * time.Millisecond

	// remembered is for how many ticks a clock knows each. These are five minutes, or more on a machine that is late.
	remembered = 5 * 60 * 100
)

// A Clock notes how late its machine is while Run runs. Its zero value is ready.
type Clock struct {
	mu    sync.Mutex // guards what follows
	since time.Time  // of the tick under way; zero: there is none
	ticks []waited   // the last of them, a ring
	next  int        // where in the ring the next one goes, once it is full
	late  time.Duration
	all   time.Duration
	worst time.Duration
}

// waited is one tick.
type waited struct {
	begin, end time.Time
	late       time.Duration
}

// Run measures until ctx ends.
func (c *Clock) Run(ctx context.Context) {
	t := time.NewTimer(tick)
	defer t.Stop()
	for {
		t.Reset(tick)
		c.begin(time.Now())
		select {
		case <-t.C:
			c.end(time.Now())
		case <-ctx.Done():
			c.begin(time.Time{})
			return
		}
	}
}

func (c *Clock) begin(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.since = now
}

func (c *Clock) end(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.underWay(now)
	c.late += w.late
	c.all += w.end.Sub(w.begin)
	c.worst = max(c.worst, w.late)
	if c.ticks == nil {
		c.ticks = make([]waited, 0, remembered) // at once, lest it look like a leak
	}
	if len(c.ticks) < remembered {
		c.ticks = append(c.ticks, w)
		return
	}
	c.ticks[c.next] = w
	c.next = (c.next + 1) % remembered
}

// underWay is the tick that has not ended, as if it did now.
func (c *Clock) underWay(now time.Time) waited {
	return waited{c.since, now, max(0, now.Sub(c.since)-tick)}
}

// Whole is the reading of all the time the clock has run.
func (c *Clock) Whole() Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == 0 {
		return Reading{}
	}
	return Reading{Worst: c.worst, Share: float64(c.late) / float64(c.all)}
}

// Over is the reading of a time. Ticks that only touch it count in full. Of what was more than some minutes ago a clock knows nothing.
func (c *Clock) Over(from, to time.Time) (r Reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var late, all time.Duration
	note := func(w waited) {
		if w.begin.Before(to) && w.end.After(from) {
			late += w.late
			all += w.end.Sub(w.begin)
			r.Worst = max(r.Worst, w.late)
		}
	}
	for _, w := range c.ticks {
		note(w)
	}
	if !c.since.IsZero() {
		note(c.underWay(time.Now()))
	}
	if all > 0 {
		r.Share = float64(late) / float64(all)
	}
	return r
}
