package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// spareMemory gives back to the system, until ctx ends, what the process does not need any more. Work leaves behind garbage, large buffers
// and deep stacks. A busy process gets rid of them by and by, but one that falls quiet allocates nothing, and so
// its collector does not run: ten thousand idle connections would hold what they held when they were opened.
func spareMemory(ctx context.Context) {
	debug.FreeOSMemory() // to read a file of many members takes several times what is kept of it
	go func() {
		t := thrift{kept: resident()}
		last, err := cpuTime()
		if err != nil {
			return // nothing to judge by
		}
		tick := time.NewTicker(thriftEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			used, err := cpuTime()
			if err != nil {
				return
			}
			if t.due((used-last).Seconds()/thriftEvery.Seconds(), resident()) {
				debug.FreeOSMemory()
				t.kept = resident()
				used, _ = cpuTime() // this was no work
			}
			last = used
		}
	}()
}

// collectOften has the collector run twice as often, for a process whose way of packets makes no garbage.
//
// Whoever sets GOGC has decided for himself.
func collectOften() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// thrift decides when memory is worth giving back.
type thrift struct {
	kept uint64 // resident after the last time
}

const (
	thriftEvery = 5 * time.Second
	thriftQuiet = 0.2     // of one processor: that much keeping alive a crowd may take
	thriftLeast = 8 << 20 // what is less is not worth it
)

// due is told how many processors' time was used since it was last called.
func (t *thrift) due(used float64, resident uint64) bool {
	return used < thriftQuiet && resident > t.kept+max(t.kept/4, thriftLeast)
}

// resident is the memory that the Go runtime has from the system.
func resident() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}
