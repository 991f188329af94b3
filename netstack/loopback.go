package netstack

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const loopSlots = 256

// loopback turns packets for this peer's own addresses back into the stack. It does so on a
// goroutine of its own: the stack sends with locks held that receiving takes.
type loopback struct {
	in      *ipStack
	packets chan *stack.PacketBuffer
	over    chan struct{}
	ended   sync.WaitGroup
}

func newLoopback(in *ipStack) *loopback {
	l := &loopback{
		in:      in,
		packets: make(chan *stack.PacketBuffer, loopSlots),
		over:    make(chan struct{}),
	}
	l.ended.Go(l.turnBack)
	return l
}

// put reports whether there was room.
func (l *loopback) put(pkt *stack.PacketBuffer) bool {
	select {
	case l.packets <- pkt.IncRef():
		return true
	default:
		pkt.DecRef()
		return false
	}
}

func (l *loopback) turnBack() {
	for {
		select {
		case <-l.over:
			return
		case pkt := <-l.packets:
			// Headers are parsed anew, in a buffer that shares the payload.
			back := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: pkt.ToBuffer()})
			back.NetworkProtocolNumber = pkt.NetworkProtocolNumber
			pkt.DecRef()
			l.in.deliver(back, false)
			back.DecRef()
		}
	}
}

func (l *loopback) close() {
	close(l.over)
	l.ended.Wait()
}
