package engine

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/adit-overlay/adit/packet"
)

// refusals tell those who send by the device that a packet of theirs could not go on, by ICMP, so that a
// dial to nobody fails at once, and who sends packets that are too long sends shorter ones.
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
	h, err := packet.Parse(pkt)
	if err != nil {
		return
	}
	e.answer(func(buf []byte) []byte { return packet.AppendUnreachable(buf, pkt, &h, why, h.Dst) })
}

// refuseLength tells the sender of p, which went on by other means, that packets of more than mtu bytes are too long. Of p the first
// piece is quoted, which has all headers.
func (e *Engine) refuseLength(p *packet.Packet, mtu int) {
	h, err := packet.ParseHead(p.Pieces[0], p.Len())
	if err != nil {
		return
	}
	e.answer(func(buf []byte) []byte { return packet.AppendTooBig(buf, p.Pieces[0], &h, mtu, h.Dst) })
}

// answer gives the device the message that appendTo makes, if it makes one.
func (e *Engine) answer(appendTo func([]byte) []byte) {
	f := &e.refusals
	if e.cfg.Device == nil || !f.limit.AllowN(time.Now(), 1) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	msg := appendTo(nil)
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
