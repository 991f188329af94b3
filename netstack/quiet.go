package netstack

import (
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/log"
)

// quiet stops gVisor's packages from writing to standard error by a logger that is the whole process's. What
// they say there, a line a packet at the worst, is about single packets, and a stranger can cause it; what
// matters of it is in Stats.
var quiet = sync.OnceFunc(func() { log.SetTarget(silence{}) })

type silence struct{}

func (silence) Emit(int, log.Level, time.Time, string, ...any) {}
