package strain

import (
	"math"
	"testing"
	"time"
)

// ran is a clock that ticked n times from start, each tick so much late.
func (c *Clock) ran(start time.Time, n int, late time.Duration) (end time.Time) {
	for range n {
		c.begin(start)
		start = start.Add(tick + late)
		c.end(start, false)
	}
	c.begin(time.Time{})
	return start
}

func TestReadingIsOfTheTimeAskedFor(t *testing.T) {
	var c Clock
	start := time.Unix(1000, 0)
	calm := c.ran(start, 100, 0)                 // a second
	busy := c.ran(calm, 50, 10*time.Millisecond) // another
	hung := c.ran(busy, 1, 300*time.Millisecond) // and one wait
	end := c.ran(hung, 100, 0)                   // and another second
	for _, x := range []struct {
		name           string
		from, to       time.Time
		worst          time.Duration
		share          float64
		strained, busy bool
	}{
		{"calm", start, calm, 0, 0, false, false},
		{"busy", calm, busy, 10 * time.Millisecond, 0.5, true, true},
		{"half of it busy", start, busy, 10 * time.Millisecond, 0.25, true, true},
		{"one wait, and long enough after it", hung.Add(-time.Millisecond), end.Add(10 * time.Second), 300 * time.Millisecond, 0.229, true, true},
		{"nothing is known of it", end, end.Add(time.Second), 0, 0, false, false},
	} {
		r := c.Over(x.from, x.to)
		if r.Worst != x.worst || math.Abs(r.Share-x.share) > 0.001 || r.Strained() != x.strained || r.Busy() != x.busy {
			t.Errorf("%s: %v, strained %t, busy %t; want %v, %.3f, %t, %t", x.name, r, r.Strained(), r.Busy(), x.worst, x.share, x.strained, x.busy)
		}
	}
	if r := c.Whole(); r.Worst != 300*time.Millisecond || math.Abs(r.Share-0.8/3.31) > 0.001 {
		t.Errorf("the whole: %v", r)
	}
}

// A crowd is strain, though the clock itself gets its processor.
func TestCrowdIsStrain(t *testing.T) {
	start := time.Unix(1000, 0)
	for _, c := range []struct {
		crowded  int // ticks of ten
		strained bool
	}{{0, false}, {4, false}, {6, true}, {10, true}} {
		var clock Clock
		now := start
		for i := range 10 {
			clock.begin(now)
			now = now.Add(tick)
			clock.end(now, i < c.crowded)
		}
		clock.begin(time.Time{})
		if r := clock.Over(start, now); r.Strained() != c.strained {
			t.Errorf("%d of 10: %v, strained %t, want %t", c.crowded, r, r.Strained(), c.strained)
		}
	}
}

// One wait makes seconds count for nothing, and does not make a minute strained.
func TestOneWaitIsNoStrain(t *testing.T) {
	var c Clock
	start := time.Unix(1000, 0)
	end := c.ran(c.ran(start, 1, 2*Lag), 6000, 0)
	if r := c.Over(start, end); r.Strained() || !r.Busy() {
		t.Errorf("%v: strained %t, busy %t, want only busy", r, r.Strained(), r.Busy())
	}
}

// A wait that has not ended yet is one.
func TestWaitUnderWayCounts(t *testing.T) {
	var c Clock
	start := time.Now().Add(-time.Second)
	c.begin(start)
	if r := c.Over(start, time.Now()); !r.Busy() {
		t.Errorf("%v, in a second without a tick", r)
	}
}

// The memory of a clock does not grow, and the last minutes are in it.
func TestClockForgets(t *testing.T) {
	var c Clock
	start := time.Unix(1000, 0)
	end := c.ran(c.ran(start, 10, time.Second), 2*remembered, 0)
	if len(c.ticks) != remembered {
		t.Errorf("%d ticks are remembered, want %d", len(c.ticks), remembered)
	}
	if r := c.Over(start, end); r.Busy() {
		t.Errorf("%v, since what was long ago", r)
	}
	if c.Whole().Worst != time.Second {
		t.Error("the whole forgets")
	}
}
