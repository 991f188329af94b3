package socks

import (
	"sync"
	"sync/atomic"
	"time"
)

// idleWatch calls a function once when touch has not been called for a while.
// It is one timer that looks back when it fires, so that touch costs no more
// than reading the clock.
type idleWatch struct {
	limit   time.Duration
	started time.Time
	last    atomic.Int64 // time of the last touch, since started

	mu    sync.Mutex  // held while the timer's function runs
	timer *time.Timer // nil: stopped, or no limit
	quiet func()
}

// watchIdle starts a watch; a limit below zero means never. quiet must not
// call stop.
func watchIdle(limit time.Duration, quiet func()) *idleWatch {
	w := &idleWatch{limit: limit, started: time.Now(), quiet: quiet}
	if limit > 0 {
		w.mu.Lock()
		w.timer = time.AfterFunc(limit, w.look)
		w.mu.Unlock()
	}
	return w
}

func (w *idleWatch) touch() {
	w.last.Store(int64(time.Since(w.started)))
}

func (w *idleWatch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer == nil {
		return
	}
	idle := time.Since(w.started) - time.Duration(w.last.Load())
	if idle < w.limit {
		w.timer.Reset(w.limit - idle)
		return
	}
	w.timer = nil
	w.quiet()
}

// stop ends the watch; when it returns, quiet is not running and will not.
func (w *idleWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}
