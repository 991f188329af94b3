package load

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Open asks for GETs of 128 bytes in an open loop: a connection each, begun evenly spaced, with
// ten seconds each from when it was to begin.
type Open struct {
	Host     string
	Rate     int // a second
	Duration time.Duration
}

// OpenResult is what came of them. Latency is of those that succeeded, from when they were to begin.
type OpenResult struct {
	Latency
	OK  float64 // share that succeeded
	Why string  // the last failure
}

const openTimeout = 10 * time.Second

// Run begins all requests, and returns when the last has ended.
func (o Open) Run(ctx context.Context, n Network) (OpenResult, error) {
	total := int(float64(o.Rate) * o.Duration.Seconds())
	if total < 1 {
		return OpenResult{}, fmt.Errorf("%d a second for %v is no request", o.Rate, o.Duration)
	}
	took := make([]time.Duration, total)
	errs := make([]error, total)
	var wg sync.WaitGroup
	begin := time.Now().Add(10 * time.Millisecond)
	for i := range total {
		due := begin.Add(time.Duration(float64(i) / float64(o.Rate) * float64(time.Second)))
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		wg.Go(func() {
			_, errs[i] = get(ctx, n, o.Host, nil, false, due.Add(openTimeout))
			took[i] = time.Since(due)
		})
	}
	wg.Wait()
	var r OpenResult
	var ok []time.Duration
	for i, err := range errs {
		if err != nil {
			r.Why = err.Error()
			continue
		}
		ok = append(ok, took[i])
	}
	r.Latency = latencyOf(ok)
	r.OK = float64(len(ok)) / float64(total)
	return r, nil
}
