package main

import (
	"context"
	"os"
	"runtime"
	"runtime/metrics"
	"time"
)

// govern keeps the processors that the Go runtime uses as few as the work needs, until ctx ends.
//
// A packet passes through several goroutines. With one processor that is a switch of some hundred nanoseconds
// each time; with more the runtime wakes an idle one for each, in case there is more to come, and that costs several
// microseconds. On two cores a stream between stacks takes a third less processor time with one processor a
// process (docs/performance.md). When the one is full there are more; and when work waits in a long line for it, which it does
// not fill if other programs take their share of the machine.
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
	line := []metrics.Sample{{Name: "/sched/goroutines/runnable:goroutines"}}
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
			metrics.Read(line)
			before := g.now
			if g.judge((used-last).Seconds()/now.Sub(at).Seconds(), int(line[0].Value.Uint64())); g.now != before {
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
	long      = 64   // goroutines that wait for each in use: more are needed
	calmFor   = 20   // judgements before there are fewer
	watchful  = 50 * time.Millisecond
	unhurried = time.Second
)

// judge is told how many processors' time was used since it was last called, and how many goroutines wait for one now.
func (g *governor) judge(used float64, waiting int) {
	g.interval = watchful
	if used < asleep && g.now == 1 {
		g.interval = unhurried
	}
	switch half := (g.now + 1) / 2; {
	case used >= full*float64(g.now), waiting >= long*g.now:
		g.now = min(2*g.now, g.most)
		g.calm = 0
	case g.now == 1 || used >= enough*float64(half) || waiting >= long*half/2:
		g.calm = 0
	default:
		if g.calm++; g.calm == calmFor {
			g.now, g.calm = half, 0
		}
	}
}
