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
	worst time.Duration
}

// tooBusy is how late a machine may be for what it measures to count.
const tooBusy = 100 * time.Millisecond

const tick = 10 * time.Millisecond

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
