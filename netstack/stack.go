// Package netstack ends the overlay in a TCP/IP stack inside this process, so that a peer
// needs no privilege: gVisor's stack as a device that takes and gives plain IP packets, with the
// calls of package net on its other side.
//
//	Dial, Listen, …  ──►  gVisor  ──► sendQueue ──►  Read      (to the engine)
//	                      gVisor  ◄──────────────── Inlet     (from the engine)
//	                        │
//	                     forwards  ──►  the host's network, for advertised addresses only
//
// TCP leaves as super-packets of many segments with partial checksums, and may enter so.
//
// An address of this peer is served by the stack alone: a TCP port nobody listens on answers RST, a
// UDP port with an ICMP error, and neither ever reaches the host. Only addresses within
// Config.Advertise lead to the host.
package netstack

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"golang.org/x/time/rate"
)

// A Stack is a TCP/IP stack with a device's face to the overlay and a face like package net to the
// program. All methods but Read may be called by many goroutines.
type Stack struct {
	cfg Config
	log *slog.Logger
	g   *stack.Stack

	own                map[netip.Addr]struct{}
	trusted, verifying *link
	queue              *sendQueue
	loop               *loopback
	outlet             outlet
	forwards           *forwards // nil when nothing is advertised
	stats              counters

	// gate is held for reading by whoever may register an endpoint or enter a packet; closed is
	// set under it, so that after Close has had it nothing new comes to be.
	gate   sync.RWMutex
	closed bool

	closing context.Context // done when Close begins
	begin   context.CancelFunc
	done    chan struct{} // closed when Close is through
}

// New returns a running stack. The error names the field of cfg that is wrong.
func New(cfg Config) (*Stack, error) {
	cfg, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	s := &Stack{
		cfg:   cfg,
		log:   cfg.Logger,
		own:   make(map[netip.Addr]struct{}),
		queue: newSendQueue(),
		done:  make(chan struct{}),
	}
	s.closing, s.begin = context.WithCancel(context.Background())
	v4, v6 := false, false
	for _, p := range cfg.Addresses {
		s.own[p.Addr()] = struct{}{}
		v4 = v4 || p.Addr().Is4()
		v6 = v6 || p.Addr().Is6()
	}

	s.g = stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		},
		Clock: cfg.clock,
	})
	size := gsoMaxSize(cfg.MTU, cfg.GSOMaxSegments, v4, v6)
	s.trusted = &link{mtu: uint32(cfg.MTU), gsoMaxSize: size, send: s.send, rxOffload: true}
	s.verifying = &link{mtu: uint32(cfg.MTU), gsoMaxSize: size, send: s.send}
	s.loop = newLoopback(s.trusted)
	if len(cfg.Advertise) > 0 {
		s.forwards = newForwards(s)
	}
	if err := s.configure(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// configure brings up the interfaces and sets the options of the protocols.
func (s *Stack) configure() error {
	for _, set := range tcpOptions() {
		if err := s.g.SetTransportProtocolOption(tcp.ProtocolNumber, set); err != nil {
			return fmt.Errorf("netstack: set %T: %v", set, err)
		}
	}
	// The default of 1,000 a second would make a ping flood look like loss.
	s.g.SetICMPLimit(rate.Limit(50_000))
	s.g.SetICMPBurst(1000)

	for id, l := range map[tcpip.NICID]*link{trustedNIC: s.trusted, verifyingNIC: s.verifying} {
		if err := s.g.CreateNIC(id, l); err != nil {
			return fmt.Errorf("netstack: create interface: %v", err)
		}
		for a := range s.own {
			address := tcpip.ProtocolAddress{
				Protocol:          protocolOf(a),
				AddressWithPrefix: addressOf(a).WithPrefix(),
			}
			if err := s.g.AddProtocolAddress(id, address, stack.AddressProperties{}); err != nil {
				return fmt.Errorf("netstack: add address %v: %v", a, err)
			}
		}
		if s.forwards != nil {
			if err := s.g.SetPromiscuousMode(id, true); err != nil {
				return fmt.Errorf("netstack: accept advertised addresses: %v", err)
			}
			if err := s.g.SetSpoofing(id, true); err != nil {
				return fmt.Errorf("netstack: answer from advertised addresses: %v", err)
			}
		}
	}
	// Routes of one prefix length are tried in this order, if the interface is not given.
	s.g.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: trustedNIC},
		{Destination: header.IPv4EmptySubnet, NIC: verifyingNIC},
		{Destination: header.IPv6EmptySubnet, NIC: trustedNIC},
		{Destination: header.IPv6EmptySubnet, NIC: verifyingNIC},
	})
	if s.forwards != nil {
		s.g.SetTransportProtocolHandler(tcp.ProtocolNumber, s.forwards.handleTCP)
		s.g.SetTransportProtocolHandler(udp.ProtocolNumber, s.forwards.handleUDP)
	}
	return nil
}

// tcpOptions returns how TCP is tuned. The choices were measured: without loss buffers decide, under
// loss RACK and a low minimum of the retransmission timeout do, and Cubic collapses.
func tcpOptions() []tcpip.SettableTransportProtocolOption {
	sack := tcpip.TCPSACKEnabled(true)
	recovery := tcpip.TCPRACKLossDetection
	control := tcpip.CongestionControlOption("reno")
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	minRTO := tcpip.TCPMinRTOOption(20 * time.Millisecond)
	// With 15 retransmissions of a segment, a far end that is gone is noticed in three to five
	// minutes; 120 seconds, gVisor's default, would make it half an hour.
	maxRTO := tcpip.TCPMaxRTOOption(30 * time.Second)
	// What the network of an overlay can still hold back is seconds old, not minutes. A client that
	// makes thousands of connections a second would run out of ports with more.
	timeWait := tcpip.TCPTimeWaitTimeoutOption(5 * time.Second)
	reuse := tcpip.TCPTimeWaitReuseGlobal
	// Linux's tcp_fin_timeout. It frees a closed connection whose far end never closes.
	linger := tcpip.TCPLingerTimeoutOption(60 * time.Second)
	return []tcpip.SettableTransportProtocolOption{
		&sack, &recovery, &control, &moderate, &minRTO, &maxRTO, &timeWait, &reuse, &linger,
		&tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 4 << 20},
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 4 << 20},
	}
}

// MTU returns the greatest size of a single packet, in bytes.
func (s *Stack) MTU() int { return s.cfg.MTU }

func (s *Stack) isOwn(a netip.Addr) bool {
	_, ok := s.own[a]
	return ok
}

// send queues a packet for Read, or turns it back if it is for this peer itself.
func (s *Stack) send(pkt *stack.PacketBuffer) bool {
	if s.isOwn(addrOf(pkt.Network().DestinationAddress())) {
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
// peers' ends are reset: Read still returns those last packets before net.ErrClosed. It is always nil.
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
	s.queue.hurry()
	if s.forwards != nil {
		s.forwards.wait()
	}
	s.closeEndpoints()
	s.loop.close()
	s.queue.close()
	close(s.done)
	return nil
}

// closeEndpoints aborts all endpoints and waits for the goroutines of the stack. A SYN that was being
// handled meanwhile may leave one more endpoint behind, which the stack's Wait would wait
// for without end: hence again until it is through.
func (s *Stack) closeEndpoints() {
	s.g.Close()
	through := make(chan struct{})
	go func() {
		defer close(through)
		s.g.Wait()
	}()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case <-through:
			return
		case <-again.C:
			s.g.Close()
		}
	}
}
