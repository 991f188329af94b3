package netstack

import (
	"context"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// forwards leads connections from the overlay into the advertised networks of the host.
//
// The far side is dialled first, and the near side learns what came of it: a refused dial is
// answered with RST, one to an address the host has no route to likewise, and one that is not answered in
// time is not answered.
type forwards struct {
	s       *Stack
	ip      *ipStack       // in which the far ends of the overlay find every advertised address
	nets    []netip.Prefix // masked
	ctx     context.Context
	tcp     *tcp.Forwarder
	udp     *udp.Forwarder
	running sync.WaitGroup // everything started for a connection, flow or echo

	dials  *slots // a TCP connection until both sides are open
	flows  *slots // a UDP flow while it lives
	echoes *slots

	mu       sync.Mutex
	ended    bool                                   // nothing new is started; guards running.Add
	dialling map[stack.TransportEndpointID]struct{} // TCP connections until both sides are open
}

func newForwards(s *Stack) (*forwards, error) {
	ip, err := newIPStack(s.cfg, nil, s.send)
	if err != nil {
		return nil, err
	}
	l := s.cfg.Limits
	f := &forwards{
		s:        s,
		ip:       ip,
		ctx:      s.closing,
		dials:    newSlots(l.Dials, l.DialsPerSource),
		flows:    newSlots(l.Flows, l.FlowsPerSource),
		echoes:   newSlots(l.Echoes, l.Echoes),
		dialling: make(map[stack.TransportEndpointID]struct{}),
	}
	for _, p := range s.cfg.Advertise {
		f.nets = append(f.nets, p.Masked())
	}
	// The limit is ours to hold, so that dials and not requests are counted, and by source.
	f.tcp = tcp.NewForwarder(ip.g, 0, l.Dials+1, f.forwardTCP)
	f.udp = udp.NewForwarder(ip.g, f.forwardUDP)
	ip.g.SetTransportProtocolHandler(tcp.ProtocolNumber, f.handleTCP)
	ip.g.SetTransportProtocolHandler(udp.ProtocolNumber, f.handleUDP)
	return f, nil
}

// allowed reports whether a is the address of a machine in an advertised network that the host may be
// asked to reach. Addresses that mean the host itself or a link of its are not, whatever is advertised.
func (f *forwards) allowed(a netip.Addr) bool {
	if !unicast(a) || a.Is4In6() {
		return false
	}
	for _, p := range f.nets {
		if p.Contains(a) && !isBroadcast(p, a) {
			return !f.s.isOwn(a)
		}
	}
	return false
}

// isBroadcast reports whether a is the broadcast or the nameless network address of p, which some
// hosts take for broadcast too.
func isBroadcast(p netip.Prefix, a netip.Addr) bool {
	if !a.Is4() || p.Bits() > 30 {
		return false
	}
	if a == p.Addr() {
		return true
	}
	next := a.Next()
	return !next.IsValid() || !p.Contains(next)
}

// begin counts in something about to be started, unless the stack is closing.
func (f *forwards) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return false
	}
	f.running.Add(1)
	return true
}

// localAddr returns what the far end of the overlay dialled.
func localAddr(id stack.TransportEndpointID) netip.AddrPort {
	return netip.AddrPortFrom(addrOf(id.LocalAddress), id.LocalPort)
}

func remoteAddr(id stack.TransportEndpointID) netip.AddrPort {
	return netip.AddrPortFrom(addrOf(id.RemoteAddress), id.RemotePort)
}

// reopen makes way for a SYN whose ports are those of a connection in TIME_WAIT. The stack
// itself hands such a SYN to a listening endpoint and else drops it, and forwarding has no listener: the
// client would wait a second for each such port. RFC 1122, section 4.2.2.13, allows to reopen.
func (f *forwards) reopen(d datagram) {
	t := d.payload()
	id := stack.TransportEndpointID{
		LocalAddress: addressOf(d.dst), LocalPort: uint16(t[2])<<8 | uint16(t[3]),
		RemoteAddress: addressOf(d.src), RemotePort: uint16(t[0])<<8 | uint16(t[1]),
	}
	ep := f.find(id)
	if ep == nil {
		return
	}
	// The acknowledgement that lets the client go on is sent before the state is TIME_WAIT, so that this SYN
	// may be quicker. Whoever is at it holds the lock.
	ep.LockUser()
	state := ep.EndpointState()
	ep.UnlockUser()
	if state == tcp.StateTimeWait {
		f.s.stats.timeWaitReused.Add(1)
		ep.Abort()
	}
}

// find returns the TCP endpoint of a connection, or nil.
func (f *forwards) find(id stack.TransportEndpointID) *tcp.Endpoint {
	protocol := protocolOf(addrOf(id.LocalAddress))
	ep, _ := f.ip.g.FindTransportEndpoint(protocol, tcp.ProtocolNumber, id, trustedNIC(protocol)).(*tcp.Endpoint)
	return ep
}

// slots counts what is held, in all and for each source.
type slots struct {
	most, mostPerSource int

	mu        sync.Mutex
	held      int
	perSource map[netip.Addr]int
}

func newSlots(most, mostPerSource int) *slots {
	return &slots{most: most, mostPerSource: mostPerSource, perSource: make(map[netip.Addr]int)}
}

// take reports whether source may hold one more, and counts it if so.
func (s *slots) take(source netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held >= s.most || s.perSource[source] >= s.mostPerSource {
		return false
	}
	s.held++
	s.perSource[source]++
	return true
}

// release gives back what take counted.
func (s *slots) release(source netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held--
	if s.perSource[source]--; s.perSource[source] == 0 {
		delete(s.perSource, source)
	}
}
