package engine

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/adit-overlay/adit/packet"
)

// refusals tell those who send by the device that a packet of theirs could not go on, by ICMP, so that a
// dial to nobody fails at once.
type refusals struct {
	mu    sync.Mutex
	inlet packet.Inlet // nil until first used
	limit *rate.Limiter
}

// refusalsPerSecond bounds them: they help programs that dial, not those that flood.
const refusalsPerSecond = 1000

func (f *refusals) init() { f.limit = rate.NewLimiter(refusalsPerSecond, refusalsPerSecond) }

// refuse tells the sender of a packet from the device that it cannot go on. The message comes from where the packet
// was going: devices, kernels too, take nothing that says it comes from an address of their own.
func (e *Engine) refuse(pkt []byte, why packet.Unreachable) {
	f := &e.refusals
	h, err := packet.Parse(pkt)
	if err != nil || e.cfg.Device == nil || !f.limit.AllowN(time.Now(), 1) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	msg := packet.AppendUnreachable(nil, pkt, &h, why, h.Dst)
	if len(msg) == 0 {
		return
	}
	if f.inlet == nil {
		f.inlet = e.cfg.Device.Inlet()
	}
	if err := f.inlet.Deliver(copy(f.inlet.Lend(len(msg)), msg), packet.Offload{Checksum: packet.ChecksumVerified}); err != nil {
		e.drop(DropDevice)
	}
}
