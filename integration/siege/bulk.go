//go:build linux

package main

import (
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/integration/internal/service"
	"github.com/adit-overlay/adit/integration/lab"
)

// A bulk is a TCP stream from A to B, as fast as it goes.
type bulk struct {
	f    *field
	sent atomic.Int64
	err  atomic.Pointer[error] // why it ended
}

// bulk begins a stream, which ends with the field.
func (f *field) bulk() *bulk {
	c, err := f.s.dial(f.hostA, "tcp", f.service(service.DiscardPort))
	if err != nil {
		f.s.Fatalf("a stream between members: %v", err)
	}
	b := &bulk{f: f}
	go func() {
		piece := make([]byte, 256<<10)
		for {
			n, err := c.Write(piece)
			b.sent.Add(int64(n))
			if err != nil {
				b.err.Store(&err)
				return
			}
		}
	}()
	return b
}

// rate is how many bytes a second the stream moves, over d.
func (b *bulk) rate(d time.Duration) float64 {
	begin, before := time.Now(), b.sent.Load()
	b.f.s.sleep(d)
	if err := b.err.Load(); err != nil {
		b.f.s.Fatalf("the stream between members broke: %v", *err)
	}
	return float64(b.sent.Load()-before) / time.Since(begin).Seconds()
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// gbit writes bytes a second.
func gbit(rate float64) string { return fmt.Sprintf("%.2f Gbit/s", rate*8/1e9) }

// newcomer runs a member that was not there before, and returns how long it takes from the start of its process until B
// answers it. knows is what its file says of others.
func (f *field) newcomer(n int, knows string) time.Duration {
	file := f.memberFile(n, tun, knows)
	begin := time.Now()
	p := f.launch(f.hostNew, "adit", "up", "-c", file)
	defer stop(p)
	for {
		c, err := f.s.dial(f.hostNew, "tcp", f.service(service.EchoPort))
		if err == nil {
			c.Close()
			return time.Since(begin)
		}
		if time.Since(begin) > patience {
			f.s.Fatalf("newcomer %v does not reach B: %v; it wrote:\n%s", roster.IPv4(n), err, p.Output())
		}
		f.s.sleep(5 * time.Millisecond) // there is no interface yet
	}
}

// stop ends a process and waits for its end.
func stop(p *lab.Process) {
	p.Signal(syscall.SIGTERM)
	<-p.Done()
}
