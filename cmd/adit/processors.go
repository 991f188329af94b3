package main

import (
	"context"
	"os"
	"runtime"
	"time"
)

// govern keeps the processors that the Go runtime uses as few as the work needs, until ctx ends.
//
// A packet passes through several goroutines. With one processor that is a switch of some hundred nanoseconds
// each time; with more the runtime wakes an idle one for each, in case there is more to come, and that costs several
// microseconds. On two cores a stream between stacks takes a third less processor time with one processor a
// process (docs/performance.md). When the one is full there are more.
//
// Whoever sets GOMAXPROCS has decided for himself.
func govern(ctx context.Context) {
	most := runtime.GOMAXPROCS(0)
	if most == 1 || os.Getenv("GOMAXPROCS") != "" {
		return
	}
	last, err := cpuTime()
	if err != nil {
		return // nothing to judge by
	}
	runtime.GOMAXPROCS(1)
	go func() {
		defer runtime.GOMAXPROCS(most)
		g := governor{most: most, now: 1, interval: watchful}
		for at := time.Now(); ; {
			select {
			case <-time.After(g.interval):
			case <-ctx.Done():
				return
			}
			used, err := cpuTime()
			if err != nil {
				return
			}
			now := time.Now()
			before := g.now
			if g.judge((used - last).Seconds() / now.Sub(at).Seconds()); g.now != before {
				runtime.GOMAXPROCS(g.now)
			}
			last, at = used, now
		}
	}()
}

// A governor decides how many processors there should be.
type governor struct {
	most, now int
	calm      int           // how often in a row fewer would have done
	interval  time.Duration // until the next judgement
}

const (
	full      = 0.85 // of the processors in use: more are needed
	enough    = 0.6  // of half of them: half would do
	asleep    = 0.02 // of one: nothing is going on
	calmFor   = 20   // judgements before there are fewer
	watchful  = 50 * time.Millisecond
	unhurried = time.Second
)

// judge is told how many processors' time was used since it was last called.
func (g *governor) judge(used float64) {
	g.interval = watchful
	if used < asleep && g.now == 1 {
		g.interval = unhurried
	}
	switch half := (g.now + 1) / 2; {
	case used >= full*float64(g.now):
		g.now = min(2*g.now, g.most)
		g.calm = 0
	case g.now == 1 || used >= enough*float64(half):
		g.calm = 0
	default:
		if g.calm++; g.calm == calmFor {
			g.now, g.calm = half, 0
		}
	}
}
