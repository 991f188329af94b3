// Package netstack ends the overlay in a TCP/IP stack inside this process, so that a peer
// needs no privilege: gVisor's stack as a device that takes and gives plain IP packets, with the
// calls of package net on its other side.
//
//	Dial, Listen, …  ◄──►  gVisor, own addresses          ──►  sendQueue  ──►  Read
//	the host's network ◄──►  gVisor, advertised addresses  ──►  sendQueue  ──►  Read
//	                                    Inlet  ──►  either of the two, by destination
//
// TCP leaves as super-packets of many segments with partial checksums, and may enter so.
//
// An address of this peer is served by the stack alone: a TCP port nobody listens on answers RST, a
// UDP port with an ICMP error, and neither ever reaches the host. Only addresses within
// Config.Advertise lead to the host.
package netstack

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A Stack is a TCP/IP stack with a device's face to the overlay and a face like package net to the
// program. All methods but Read may be called by many goroutines.
type Stack struct {
	cfg Config
	log *slog.Logger

	own      map[netip.Addr]struct{}
	ip       *ipStack // for own addresses
	queue    *sendQueue
	loop     *loopback
	outlet   outlet
	forwards *forwards // nil when nothing is advertised
	far      far
	stats    counters

	// gate is held for reading by whoever may register an endpoint or enter a packet; the two are
	// set under it, so that after Close has had it nothing new comes to be.
	gate   sync.RWMutex
	closed bool // no new endpoints
	deaf   bool // no more packets

	closing context.Context // done when Close begins
	begin   context.CancelFunc
	done    chan struct{} // closed when Close is through

	settleTime time.Duration // see settle; tests change it
}

// New returns a running stack. The error names the field of cfg that is wrong.
func New(cfg Config) (*Stack, error) {
	cfg, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	quiet()
	s := &Stack{
		cfg:   cfg,
		log:   cfg.Logger,
		own:   make(map[netip.Addr]struct{}),
		queue: newSendQueue(),
		done:  make(chan struct{}),

		settleTime: settleTime,
	}
	s.outlet.queue = s.queue
	s.closing, s.begin = context.WithCancel(context.Background())
	addresses := make([]netip.Addr, len(cfg.Addresses))
	for i, p := range cfg.Addresses {
		addresses[i] = p.Addr()
		s.own[p.Addr()] = struct{}{}
	}
	if s.ip, err = newIPStack(cfg, addresses, s.send); err != nil {
		return nil, err
	}
	s.loop = newLoopback(s.ip)
	if len(cfg.Advertise) > 0 {
		if s.forwards, err = newForwards(s); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// MTU returns the greatest size of a single packet, in bytes.
func (s *Stack) MTU() int { return s.cfg.MTU }

func (s *Stack) isOwn(a netip.Addr) bool {
	_, ok := s.own[a]
	return ok
}

// send queues a packet for Read, or turns it back if it is for this peer itself.
func (s *Stack) send(pkt *stack.PacketBuffer) bool {
	if s.isOwn(destination(pkt)) {
		if !s.loop.put(pkt) {
			s.stats.loopFull.Add(1)
			return false
		}
		return true
	}
	if !s.queue.put(pkt) {
		s.stats.queueFull.Add(1)
		return false
	}
	return true
}

// Close ends every connection, listener and dial, and returns when all goroutines have ended. The
// peers' ends are reset: Read still returns those last packets before net.ErrClosed. There may be more of them
// than the queue holds, so that the device should be read until then; if it is not, they are dropped after
// a moment's wait. It is always nil.
func (s *Stack) Close() error {
	s.gate.Lock()
	first := !s.closed
	s.closed = true
	s.gate.Unlock()
	if !first {
		<-s.done
		return nil
	}
	s.begin()
	if s.forwards != nil {
		s.forwards.end()
	}
	s.settle()
	s.part()
	s.gate.Lock()
	s.deaf = true
	s.gate.Unlock()
	if s.forwards != nil {
		s.forwards.close()
	}
	s.ip.close()
	s.loop.close()
	s.queue.close()
	close(s.done)
	return nil
}

// settleTime is how long Close lets handshakes go on that others began.
const settleTime = 200 * time.Millisecond

// settle waits for handshakes that others began, while packets still come in. The far end takes a connection for
// made before its last handshake packet is here, and until it is the stack does not reset it: the far end
// would learn nothing of its end.
func (s *Stack) settle() {
	handshaking := func() bool {
		return s.ip.handshaking() || s.forwards != nil && len(s.forwards.handshakes()) > 0
	}
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for over := time.After(s.settleTime); handshaking(); {
		select {
		case <-over:
			return
		case <-look.C:
		}
	}
}

// Close goes on to answer what comes for the connections it has reset for this long and a round trip or two; at most mostParting.
const (
	leastParting = 10 * time.Millisecond
	mostParting  = 200 * time.Millisecond
)

// part resets the connections. A reset may be lost; and when the far window was used up, gVisor's bears a number a few bytes
// short of what was sent, and the far end drops it. But that acknowledges, or sends, and a stack that still listens answers
// with a reset that it takes.
func (s *Stack) part() {
	rtt, any := s.ip.reset()
	if s.forwards != nil {
		far, more := s.forwards.ip.reset()
		rtt, any = max(rtt, far), any || more
	}
	if any {
		time.Sleep(min(leastParting+2*rtt, mostParting))
	}
}
