package netstack

import (
	"context"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// An endpointAddr is a network and address as given to a call like Dial, taken apart.
type endpointAddr struct {
	transport string // "tcp" or "udp"
	family    byte   // '4', '6', or 0 for either
	addrPort  netip.AddrPort
}

// parseAddr reads network and address. An empty host is the invalid netip.Addr. Errors are those
// of package net.
func parseAddr(ctx context.Context, network, address string) (a endpointAddr, err error) {
	switch network {
	case "tcp", "udp":
		a.transport = network
	case "tcp4", "tcp6", "udp4", "udp6":
		a.transport, a.family = network[:3], network[3]
	default:
		return a, net.UnknownNetworkError(network)
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return a, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return a, err
	}
	var ip netip.Addr
	if host != "" {
		if ip, err = netip.ParseAddr(host); err != nil || ip.Zone() != "" {
			return a, &net.AddrError{Err: "no IP address", Addr: host}
		}
		ip = ip.Unmap()
	}
	if ip.IsValid() && (a.family == '4' && !ip.Is4() || a.family == '6' && !ip.Is6()) {
		return a, &net.AddrError{Err: "no address of the network's family", Addr: host}
	}
	a.addrPort = netip.AddrPortFrom(ip, uint16(port))
	return a, nil
}

// wildcard reports whether a stands for all own addresses. As in package net, "0.0.0.0" is those of IPv4, and
// "::" those of either family unless the network says otherwise.
func (a endpointAddr) wildcard() bool {
	return !a.addrPort.Addr().IsValid() || a.addrPort.Addr().IsUnspecified()
}

// local returns the protocol an endpoint bound to a is to have, what to bind it to, and whether it
// must not take IPv4 if it is one of IPv6.
func (a endpointAddr) local() (protocol tcpip.NetworkProtocolNumber, bind tcpip.FullAddress, v6only bool) {
	ip := a.addrPort.Addr()
	bind.Port = a.addrPort.Port()
	if !a.wildcard() {
		// Both interfaces of the family have the address, and a bound one is the one that sends.
		protocol = protocolOf(ip)
		bind.NIC, bind.Addr = trustedNIC(protocol), addressOf(ip)
		return protocol, bind, true
	}
	if a.family == '4' || ip.Is4() {
		return header.IPv4ProtocolNumber, bind, false
	}
	return header.IPv6ProtocolNumber, bind, a.family == '6'
}

// remote returns the protocol and address to connect to. As in package net, an empty host is this
// machine.
func (a endpointAddr) remote(s *Stack) (tcpip.NetworkProtocolNumber, tcpip.FullAddress) {
	ip := a.addrPort.Addr()
	if a.wildcard() {
		ip = s.selfAddr(a.family, ip)
	}
	return protocolOf(ip), tcpip.FullAddress{Addr: addressOf(ip), Port: a.addrPort.Port()}
}

// selfAddr returns the first own address of the family wanted, or like the unspecified address.
func (s *Stack) selfAddr(family byte, like netip.Addr) netip.Addr {
	for _, p := range s.cfg.Addresses {
		switch a := p.Addr(); {
		case family == '4' && !a.Is4(), family == '6' && !a.Is6():
		case like.Is4() && !a.Is4():
		default:
			return a
		}
	}
	return like
}

// netAddr returns a as package net would have it for the transport.
func netAddr(transport string, a netip.AddrPort) net.Addr {
	if transport == "udp" {
		return net.UDPAddrFromAddrPort(a)
	}
	return net.TCPAddrFromAddrPort(a)
}

func (a endpointAddr) netAddr() net.Addr { return netAddr(a.transport, a.addrPort) }

// addrPortOf converts an address of gVisor. An empty one is the unspecified address of the protocol.
func addrPortOf(a tcpip.FullAddress, protocol tcpip.NetworkProtocolNumber) netip.AddrPort {
	ip := addrOf(a.Addr)
	if !ip.IsValid() {
		ip = netip.IPv6Unspecified()
		if protocol == header.IPv4ProtocolNumber {
			ip = netip.IPv4Unspecified()
		}
	}
	return netip.AddrPortFrom(ip, a.Port)
}
