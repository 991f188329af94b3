package netstack

import (
	"fmt"
	"net/netip"
	"slices"
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

// ipStack is one instance of gVisor's stack with its interfaces. A Stack has one for its own
// addresses, and a second one for advertised networks if there are any: in one alone a
// listener on all own addresses would take connections meant for the host's network, and
// what is forwarded could be mistaken for what is not.
type ipStack struct {
	g      *stack.Stack
	v4, v6 links
}

// newIPStack returns a stack that has the given addresses, or without any takes every address for its own.
func newIPStack(cfg Config, addresses []netip.Addr, send func(*stack.PacketBuffer) bool) (*ipStack, error) {
	newLinks := func(ipHeader int) links {
		mtu, size := uint32(cfg.MTU), gsoMaxSize(cfg.MTU, cfg.GSOMaxSegments, ipHeader)
		return links{
			trusted:   &link{mtu: mtu, gsoMaxSize: size, send: send, rxOffload: true},
			verifying: &link{mtu: mtu, gsoMaxSize: size, send: send},
		}
	}
	s := &ipStack{
		g: stack.New(stack.Options{
			NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{
				tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
			},
			Clock: cfg.clock,
		}),
		v4: newLinks(header.IPv4MinimumSize),
		v6: newLinks(header.IPv6MinimumSize),
	}
	if err := s.configure(addresses); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// configure brings up the interfaces and sets the options of the protocols.
func (s *ipStack) configure(addresses []netip.Addr) error {
	for _, option := range tcpOptions() {
		if err := s.g.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return fmt.Errorf("netstack: set %T: %v", option, err)
		}
	}
	// The default of 1,000 a second would make a ping flood look like loss.
	s.g.SetICMPLimit(rate.Limit(50_000))
	s.g.SetICMPBurst(1000)

	for _, nic := range []struct {
		id       tcpip.NICID
		l        *link
		protocol tcpip.NetworkProtocolNumber
	}{
		{trustedNIC4, s.v4.trusted, header.IPv4ProtocolNumber}, {verifyingNIC4, s.v4.verifying, header.IPv4ProtocolNumber},
		{trustedNIC6, s.v6.trusted, header.IPv6ProtocolNumber}, {verifyingNIC6, s.v6.verifying, header.IPv6ProtocolNumber},
	} {
		if err := s.g.CreateNIC(nic.id, nic.l); err != nil {
			return fmt.Errorf("netstack: create interface: %v", err)
		}
		for _, a := range addresses {
			if protocolOf(a) != nic.protocol {
				continue
			}
			address := tcpip.ProtocolAddress{
				Protocol:          nic.protocol,
				AddressWithPrefix: addressOf(a).WithPrefix(),
			}
			if err := s.g.AddProtocolAddress(nic.id, address, stack.AddressProperties{}); err != nil {
				return fmt.Errorf("netstack: add address %v: %v", a, err)
			}
		}
		if len(addresses) > 0 {
			continue
		}
		if err := s.g.SetPromiscuousMode(nic.id, true); err != nil {
			return fmt.Errorf("netstack: accept all addresses: %v", err)
		}
		if err := s.g.SetSpoofing(nic.id, true); err != nil {
			return fmt.Errorf("netstack: answer from all addresses: %v", err)
		}
	}
	// Routes of one prefix length are tried in this order, if the interface is not given.
	s.g.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: trustedNIC4},
		{Destination: header.IPv4EmptySubnet, NIC: verifyingNIC4},
		{Destination: header.IPv6EmptySubnet, NIC: trustedNIC6},
		{Destination: header.IPv6EmptySubnet, NIC: verifyingNIC6},
	})
	return nil
}

// deliver hands a received packet to the stack by the right interface.
func (s *ipStack) deliver(pkt *stack.PacketBuffer, verify bool) {
	l := &s.v4
	if pkt.NetworkProtocolNumber == header.IPv6ProtocolNumber {
		l = &s.v6
	}
	if verify {
		l.verifying.inject(pkt)
	} else {
		l.trusted.inject(pkt)
	}
}

// handshaking reports whether a connection from elsewhere is being made.
func (s *ipStack) handshaking() bool {
	return slices.ContainsFunc(s.g.RegisteredEndpoints(), func(ep stack.TransportEndpoint) bool {
		t, ok := ep.(*tcp.Endpoint)
		return ok && t.EndpointState() == tcp.StateSynRecv
	})
}

// reset aborts all TCP connections. It returns after how long at most their far ends send again what was not acknowledged, as far as
// that can be told from here, and how long that then takes, and whether there was any connection.
func (s *ipStack) reset() (again time.Duration, any bool) {
	for _, ep := range s.g.RegisteredEndpoints() {
		t, ok := ep.(*tcp.Endpoint)
		if !ok {
			continue
		}
		switch t.EndpointState() {
		case tcp.StateEstablished, tcp.StateCloseWait, tcp.StateFinWait1, tcp.StateFinWait2:
			any = true
			var info tcpip.TCPInfoOption
			if err := t.GetSockOpt(&info); err == nil {
				again = max(again, info.RTO+info.RTT)
			}
		}
		t.Abort()
	}
	return again, any
}

// close aborts all endpoints and waits for the goroutines of the stack. A SYN that was being
// handled meanwhile may leave one more endpoint behind, which the stack's Wait would wait
// for without end: hence again until it is through.
func (s *ipStack) close() {
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
