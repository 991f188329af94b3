package main

import (
	"context"
	"sync"
	"time"
)

// A lagClock notes how late this machine is: a process that is to run waits so long for a processor. What is measured on a machine that is
// busy with other things says nothing about an overlay.
type lagClock struct {
	mu    sync.Mutex
	worst time.Duration // since reset

	late, all time.Duration // in sum, of the whole run
}

// tooBusy is how late a machine may be for what it measures to count.
const tooBusy = 100 * time.Millisecond

const tick = 10 * time.Millisecond

// strained is the share of the time that a process waits for a processor beyond which a machine loses datagrams by
// itself: sockets' buffers are full before anybody reads them.
const strained = 0.1

// run measures until ctx ends.
func (c *lagClock) run(ctx context.Context) {
	for begin := time.Now(); sleep(ctx, tick); begin = time.Now() {
		c.note(time.Since(begin) - tick)
	}
}

func (c *lagClock) note(late time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.worst = max(c.worst, late)
	c.late += late
	c.all += late + tick
}

// strain is the share of the time in which a process that was to run waited.
func (c *lagClock) strain() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == 0 {
		return 0
	}
	return float64(c.late) / float64(c.all)
}

// reset forgets what was.
func (c *lagClock) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.worst = 0
}

// lag is the worst since.
func (c *lagClock) lag() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.worst
}
