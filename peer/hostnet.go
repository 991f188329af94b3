package peer

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
)

// A hostNetwork is the network of a peer in TUN mode: the host's own stack, kept to the overlay addresses
// of this peer, with the calls and the errors of netstack.Stack.
//
// Where a program listens on all addresses, it gets a socket on each overlay address, and never the host's
// wildcard: what is offered on the overlay must not appear on the host's other networks. Several
// sockets then pose as one (see group).
type hostNetwork struct {
	addresses []netip.Prefix
	dialer    net.Dialer
	listen    net.ListenConfig
	open      *openSockets
}

// newHostNetwork returns the network of the overlay addresses given, which an interface of the host has.
func newHostNetwork(addresses []netip.Prefix) *hostNetwork {
	h := &hostNetwork{addresses: slices.Clone(addresses), open: newOpenSockets()}
	// Package net listens with Multipath TCP where it can, which may move a connection to other
	// addresses of the two hosts: out of the overlay, in the clear.
	h.dialer.SetMultipathTCP(false)
	h.listen.SetMultipathTCP(false)
	return h
}

// Close closes all that the network has handed out: connections, which are reset, listeners and sockets. Dials
// under way end. From then on all calls fail with net.ErrClosed.
func (h *hostNetwork) Close() error { return h.open.close() }

// DialContext connects to an IP literal with a port number or service name: tcp, tcp4, tcp6, udp, udp4 or
// udp6. The host's routes choose the source address. An empty host is this peer. The connection has all methods of
// *net.TCPConn or *net.UDPConn.
func (h *hostNetwork) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	a, err := parseHostAddr(ctx, network, address)
	if err == nil && a.wildcard() {
		if own := h.local(a); len(own) > 0 {
			a.ip = own[0].Addr()
		} else {
			err = os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)
		}
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: a.netAddr(), Err: err}
	}
	ctx, finish, ok := h.open.beginDial(ctx)
	if !ok {
		return nil, closedError("dial", network, a)
	}
	defer finish()
	dialled, err := h.dialer.DialContext(ctx, network, netip.AddrPortFrom(a.ip, a.port).String())
	if err == nil {
		if c := newHostConn(dialled, h.open); h.open.add(c) {
			return c, nil
		}
	}
	if h.open.isClosed() {
		err = closedError("dial", network, a)
	}
	return nil, err
}

// Listen announces on an own overlay address with a port: tcp, tcp4 or tcp6. An empty host is all of them,
// of both families for "tcp"; so is "::". Port 0 picks one. Connections have
// all methods of *net.TCPConn, and the listener its SetDeadline.
func (h *hostNetwork) Listen(network, address string) (net.Listener, error) {
	a, own, err := h.parseListen(network, address, "tcp")
	if err != nil {
		return nil, err
	}
	if !h.open.begin() {
		return nil, closedError("listen", network, a)
	}
	defer h.open.finish()
	bound, err := h.bindTCP(network, a.port, own)
	if err == nil {
		if l := (&hostListener{bound, h.open}); h.open.add(l) {
			return l, nil
		}
	}
	if h.open.isClosed() {
		err = closedError("listen", network, a)
	}
	return nil, err
}

func (h *hostNetwork) bindTCP(network string, port uint16, own []netip.Prefix) (tcpListener, error) {
	listeners, port, err := bindAll(own, port, func(at string) (*net.TCPListener, net.Addr, error) {
		l, err := h.listen.Listen(context.Background(), network, at)
		if err != nil {
			return nil, nil, err
		}
		return l.(*net.TCPListener), l.Addr(), nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(listeners) == 1:
		return listeners[0], nil
	}
	return newListenerGroup(net.TCPAddrFromAddrPort(unspecified(own, port)), listeners), nil
}

// ListenPacket opens a UDP socket at an own overlay address with a port: udp, udp4 or udp6. An empty host is
// all of them, of both families for "udp"; so is "::". Port 0 picks one. At a single address
// it has all methods of *net.UDPConn, else those of packetGroup.
func (h *hostNetwork) ListenPacket(network, address string) (net.PacketConn, error) {
	a, own, err := h.parseListen(network, address, "udp")
	if err != nil {
		return nil, err
	}
	if !h.open.begin() {
		return nil, closedError("listen", network, a)
	}
	defer h.open.finish()
	c, err := h.bindUDP(network, a.port, own)
	if err == nil && h.open.add(c) {
		return c, nil
	}
	if h.open.isClosed() {
		err = closedError("listen", network, a)
	}
	return nil, err
}

func (h *hostNetwork) bindUDP(network string, port uint16, own []netip.Prefix) (hostPacketConn, error) {
	conns, port, err := bindAll(own, port, func(at string) (*net.UDPConn, net.Addr, error) {
		c, err := h.listen.ListenPacket(context.Background(), network, at)
		if err != nil {
			return nil, nil, err
		}
		return c.(*net.UDPConn), c.LocalAddr(), nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(conns) == 1:
		return &hostUDPConn{conns[0], h.open}, nil
	}
	return &hostPacketGroup{newPacketGroup(net.UDPAddrFromAddrPort(unspecified(own, port)), own, conns), h.open}, nil
}

// closedError is what calls for a return once the network is closed.
func closedError(op, network string, a hostAddr) error {
	return &net.OpError{Op: op, Net: network, Addr: a.netAddr(), Err: net.ErrClosed}
}

// parseListen reads where to listen, and returns the own addresses that stands for, at least one.
func (h *hostNetwork) parseListen(network, address, transport string) (hostAddr, []netip.Prefix, error) {
	a, err := parseHostAddr(context.Background(), network, address)
	if err == nil && a.transport != transport {
		a, err = hostAddr{}, net.UnknownNetworkError(network)
	}
	own := h.local(a)
	if err == nil && len(own) == 0 {
		err = os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
	}
	if err != nil {
		return a, nil, &net.OpError{Op: "listen", Net: network, Addr: a.netAddr(), Err: err}
	}
	return a, own, nil
}

// local returns the own addresses that a stands for.
func (h *hostNetwork) local(a hostAddr) (own []netip.Prefix) {
	for _, p := range h.addresses {
		if a.covers(p.Addr()) {
			own = append(own, p)
		}
	}
	return own
}

// A hostAddr is a network and address as given to a call like Dial, taken apart.
type hostAddr struct {
	transport string     // "tcp" or "udp"
	family    byte       // '4', '6', or 0 for either
	ip        netip.Addr // invalid for an empty host
	port      uint16
}

// parseHostAddr reads network and address. Errors are those of package net.
func parseHostAddr(ctx context.Context, network, address string) (a hostAddr, err error) {
	switch network {
	case "tcp", "udp":
		a.transport = network
	case "tcp4", "tcp6", "udp4", "udp6":
		a.transport, a.family = network[:3], network[3]
	default:
		return hostAddr{}, net.UnknownNetworkError(network)
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return hostAddr{}, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return hostAddr{}, err
	}
	a.port = uint16(port)
	if host == "" {
		return a, nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Zone() != "" {
		return hostAddr{}, &net.AddrError{Err: "no IP address", Addr: host}
	}
	a.ip = ip.Unmap()
	if a.family == '4' && !a.ip.Is4() || a.family == '6' && !a.ip.Is6() {
		return hostAddr{}, &net.AddrError{Err: "no address of the network's family", Addr: host}
	}
	return a, nil
}

func (a hostAddr) wildcard() bool { return !a.ip.IsValid() || a.ip.IsUnspecified() }

// covers reports whether a is own, or stands for all own addresses and own is of the right family. As in
// package net, "0.0.0.0" is those of IPv4, and "::" those of either family unless the network says otherwise.
func (a hostAddr) covers(own netip.Addr) bool {
	switch {
	case !a.wildcard():
		return a.ip == own
	case a.family == '4' || a.ip.Is4():
		return own.Is4()
	case a.family == '6':
		return own.Is6()
	}
	return true
}

// netAddr returns a as package net would have it in an error, nil for the zero hostAddr.
func (a hostAddr) netAddr() net.Addr {
	switch a.transport {
	case "tcp":
		return &net.TCPAddr{IP: a.ip.AsSlice(), Port: int(a.port)}
	case "udp":
		return &net.UDPAddr{IP: a.ip.AsSlice(), Port: int(a.port)}
	}
	return nil
}

// unspecified returns the address by which a group of sockets on the own addresses goes, as a
// wildcard socket would.
func unspecified(own []netip.Prefix, port uint16) netip.AddrPort {
	for _, p := range own {
		if p.Addr().Is6() {
			return netip.AddrPortFrom(netip.IPv6Unspecified(), port)
		}
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), port)
}

// portPicks is how often bindAll lets the system pick a port.
const portPicks = 16

// bindAll opens a socket on each own address, all at one port, and returns them in the order of own. Port 0 is
// one that is free on all: the system picks it for the first address, and again if another address does not
// have it free.
func bindAll[S io.Closer](own []netip.Prefix, port uint16, bind func(at string) (S, net.Addr, error)) ([]S, uint16, error) {
	for pick := 1; ; pick++ {
		sockets, bound, err := bindOnce(own, port, bind)
		if err == nil {
			return sockets, bound, nil
		}
		for _, s := range sockets {
			s.Close()
		}
		if port != 0 || len(sockets) == 0 || pick == portPicks {
			return nil, 0, err
		}
	}
}

// bindOnce returns the sockets opened until an error, and their port.
func bindOnce[S io.Closer](own []netip.Prefix, port uint16, bind func(at string) (S, net.Addr, error)) ([]S, uint16, error) {
	var sockets []S
	for _, p := range own {
		s, at, err := bind(netip.AddrPortFrom(p.Addr(), port).String())
		if err != nil {
			return sockets, port, err
		}
		sockets = append(sockets, s)
		if port == 0 {
			port = at.(interface{ AddrPort() netip.AddrPort }).AddrPort().Port()
		}
	}
	return sockets, port, nil
}
