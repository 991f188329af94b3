// Package strain tells how late a machine is: how long a process that is to run waits for a processor. How soon something happened on a
// machine that is busy with other things says nothing about an overlay, and who judges times asks here first whether they can be judged.
package strain

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// Lag is how late a machine may be once for the seconds that something took to count.
	Lag = 100 * time.Millisecond

	// Share of the time waited for a processor beyond which a machine loses datagrams by itself, since sockets' buffers are full before
	// anybody reads them, and all that takes several steps is late.
	Share = 0.1

	// Crowd is the share of the time in which more threads wanted to run than there are processors, beyond which the same is true. Who
	// has slept gets a processor before others, and so does the clock: what has much to do is late before it is.
	Crowd = 0.5
)

// A Reading is how late the machine was in some time.
type Reading struct {
	Worst time.Duration // the longest wait for a processor
	Share float64       // of the time, in which who was to run waited
	Crowd float64       // of the time, in which not all who wanted to run could; 0 where the system does not say
}

// Strained reports whether the machine as a whole had more to do than it could.
func (r Reading) Strained() bool { return r.Share > Share || r.Crowd > Crowd }

// Busy reports whether seconds do not count: the machine was strained, or late once.
func (r Reading) Busy() bool { return r.Strained() || r.Worst > Lag }

func (r Reading) String() string {
	return fmt.Sprintf("waiting for a processor %.0f %% of the time, %d ms at most, with too few of them %.0f %% of the time",
		100*r.Share, r.Worst.Milliseconds(), 100*r.Crowd)
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
	whole sum
}

// sum adds up ticks.
type sum struct{ worst, late, crowd, all time.Duration }

func (s *sum) add(w waited) {
	took := w.end.Sub(w.begin)
	s.worst = max(s.worst, w.late)
	s.late += w.late
	s.all += took
	if w.crowded {
		s.crowd += took
	}
}

func (s *sum) reading() Reading {
	if s.all == 0 {
		return Reading{}
	}
	return Reading{Worst: s.worst, Share: float64(s.late) / float64(s.all), Crowd: float64(s.crowd) / float64(s.all)}
}

// waited is one tick.
type waited struct {
	begin, end time.Time
	late       time.Duration
	crowded    bool // more wanted to run than could, at its end
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
			c.end(time.Now(), crowded())
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

func (c *Clock) end(now time.Time, crowded bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.underWay(now)
	w.crowded = crowded
	c.whole.add(w)
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
	return waited{begin: c.since, end: now, late: max(0, now.Sub(c.since)-tick)}
}

// Whole is the reading of all the time the clock has run.
func (c *Clock) Whole() Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.whole.reading()
}

// Over is the reading of a time. Ticks that only touch it count in full. Of what was more than some minutes ago a clock knows nothing.
func (c *Clock) Over(from, to time.Time) Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	var s sum
	note := func(w waited) {
		if w.begin.Before(to) && w.end.After(from) {
			s.add(w)
		}
	}
	for _, w := range c.ticks {
		note(w)
	}
	if !c.since.IsZero() {
		note(c.underWay(time.Now()))
	}
	return s.reading()
}

// crowded reports whether more threads want to run than there are processors, the caller aside, if this system says that.
func crowded() bool {
	text, err := os.ReadFile("/proc/loadavg") // 0.20 0.18 0.12 RUNNABLE/ALL LAST
	if err != nil {
		return false
	}
	fields := strings.Fields(string(text))
	if len(fields) < 4 {
		return false
	}
	runnable, _, _ := strings.Cut(fields[3], "/")
	n, err := strconv.Atoi(runnable)
	return err == nil && n-1 > runtime.NumCPU()
}
