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
	tuning   tuning
	stats    counters

	// gate is held for reading by whoever may register an endpoint or enter a packet; the two are
	// set under it, so that after Close has had it nothing new comes to be.
	gate   sync.RWMutex
	closed bool // no new endpoints
	deaf   bool // no more packets

	closing context.Context // done when Close begins
	begin   context.CancelFunc
	done    chan struct{} // closed when Close is through

	settleTime, partTime time.Duration // of settle and part; tests change them
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
		partTime:   partTime,
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
