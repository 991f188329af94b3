package load

import (
	"slices"
	"time"
)

// Latency sums up how long each of many things took.
type Latency struct {
	Count         int
	P50, P99, Max time.Duration
}

// latencyOf sorts took.
func latencyOf(took []time.Duration) Latency {
	if len(took) == 0 {
		return Latency{}
	}
	slices.Sort(took)
	return Latency{
		Count: len(took),
		P50:   took[len(took)/2],
		P99:   took[len(took)*99/100],
		Max:   took[len(took)-1],
	}
}
