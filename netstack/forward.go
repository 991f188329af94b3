package netstack

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"

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

	conns   *slots[netip.Addr] // a TCP connection while it lives, by source
	dials   *slots[netip.Addr] // until both its sides are open
	targets *slots[dialTarget] // the same, so that one black hole is not all that a source can dial
	flows   *slots[netip.Addr] // a UDP flow while it lives
	echoes  *slots[netip.Addr]

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
		conns:    newSlots[netip.Addr](l.Conns, l.ConnsPerSource),
		dials:    newSlots[netip.Addr](l.Dials, l.DialsPerSource),
		targets:  newSlots[dialTarget](l.Dials, l.DialsPerTarget),
		flows:    newSlots[netip.Addr](l.Flows, l.FlowsPerSource),
		echoes:   newSlots[netip.Addr](l.Echoes, l.EchoesPerSource),
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

// ofHost reports whether a is an address of the host itself that nobody meant to open: what holds it in
// Config.Advertise is all addresses there are. Dialled from the host itself, such an address would pass by its firewall.
func (f *forwards) ofHost(a netip.Addr) bool {
	for _, p := range f.nets {
		if p.Bits() > 0 && p.Contains(a) {
			return false
		}
	}
	own, err := f.s.cfg.Host.Addresses()
	return err != nil || slices.Contains(own, a)
}

var errOfHost = &net.OpError{Op: "dial", Err: os.NewSyscallError("the host itself is not advertised", syscall.ECONNREFUSED)}

// hostAddresses asks the system.
func hostAddresses() ([]netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var own []netip.Addr
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own = append(own, ip.Unmap())
			}
		}
	}
	return own, nil
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

// dialTarget is who dials, and which address.
type dialTarget struct{ source, target netip.Addr }

// slots counts what is held, in all and by each holder.
type slots[K comparable] struct {
	most, mostPerHolder int

	mu        sync.Mutex
	held      int
	perHolder map[K]int
}

func newSlots[K comparable](most, mostPerHolder int) *slots[K] {
	return &slots[K]{most: most, mostPerHolder: mostPerHolder, perHolder: make(map[K]int)}
}

// take reports whether holder may hold one more, and counts it if so.
func (s *slots[K]) take(holder K) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held >= s.most || s.perHolder[holder] >= s.mostPerHolder {
		return false
	}
	s.held++
	s.perHolder[holder]++
	return true
}

// release gives back what take counted.
func (s *slots[K]) release(holder K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held--
	if s.perHolder[holder]--; s.perHolder[holder] == 0 {
		delete(s.perHolder, holder)
	}
}
