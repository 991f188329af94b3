package netstack

import (
	"context"
	"net"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Dial connects to an address of the overlay. The network is tcp, tcp4, tcp6, udp, udp4 or udp6, the
// address an IP literal with a port number or service name. Errors are those of package net: a
// *net.OpError around a system error number where the system has one.
func (s *Stack) Dial(network, address string) (net.Conn, error) {
	return s.DialContext(context.Background(), network, address)
}

// DialContext is Dial until ctx ends; after that the attempt has left nothing behind. A connection
// once made is not affected by ctx.
func (s *Stack) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	a, err := parseAddr(ctx, network, address)
	if err != nil {
		return nil, opError("dial", network, nil, err)
	}
	if ctx.Err() != nil {
		return nil, opError("dial", network, a.netAddr(), contextError(ctx))
	}
	var c net.Conn
	if a.transport == "udp" {
		c, err = s.dialUDP(a)
	} else {
		c, err = s.dialTCP(ctx, a)
	}
	if err != nil {
		return nil, opError("dial", network, a.netAddr(), err)
	}
	return c, nil
}

func (s *Stack) dialTCP(ctx context.Context, a endpointAddr) (net.Conn, error) {
	wq := new(waiter.Queue)
	entry, event := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)

	ep, err := s.connect(tcp.ProtocolNumber, a, wq)
	if err != nil {
		return nil, err
	}
	select {
	case <-event:
	case <-ctx.Done():
		ep.Abort()
		return nil, contextError(ctx)
	}
	if err := ep.LastError(); err != nil {
		ep.Close()
		if s.closing.Err() != nil {
			return nil, net.ErrClosed
		}
		return nil, callError("connect", err)
	}
	return newTCPConn(s, wq, ep), nil
}

func (s *Stack) dialUDP(a endpointAddr) (net.Conn, error) {
	wq := new(waiter.Queue)
	ep, err := s.connect(udp.ProtocolNumber, a, wq)
	if err != nil {
		return nil, err
	}
	return newUDPConn(s, wq, ep, protocolOf(a.addrPort.Addr())), nil
}

// connect returns an endpoint that is connected to a, or on its way there.
func (s *Stack) connect(transport tcpip.TransportProtocolNumber, a endpointAddr, wq *waiter.Queue) (tcpip.Endpoint, error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	protocol, to := a.remote(s)
	ep, terr := s.ip.g.NewEndpoint(transport, protocol, wq)
	if terr != nil {
		return nil, callError("socket", terr)
	}
	switch terr := ep.Connect(to).(type) {
	case nil, *tcpip.ErrConnectStarted:
		return ep, nil
	default:
		ep.Close()
		return nil, callError("connect", terr)
	}
}

// Listen announces on an address of this peer: tcp, tcp4 or tcp6, and an own overlay address with a
// port. An empty host is all of them, of both families for "tcp"; so is "::". Port 0 picks one.
func (s *Stack) Listen(network, address string) (net.Listener, error) {
	a, err := parseAddr(context.Background(), network, address)
	if err == nil && a.transport != "tcp" {
		err = net.UnknownNetworkError(network)
	}
	if err != nil {
		return nil, opError("listen", network, nil, err)
	}
	l, err := s.listenTCP(a)
	if err != nil {
		return nil, opError("listen", network, a.netAddr(), err)
	}
	return l, nil
}

func (s *Stack) listenTCP(a endpointAddr) (net.Listener, error) {
	l := &tcpListener{s: s, wq: new(waiter.Queue), closed: make(chan struct{})}
	ep, protocol, err := s.bind(tcp.ProtocolNumber, a, l.wq)
	if err != nil {
		return nil, err
	}
	l.ep = ep
	l.accepts.watch(l.wq, waiter.ReadableEvents|waiter.EventHUp|waiter.EventErr)
	local, terr := ep.GetLocalAddress()
	if terr == nil {
		l.addr = net.TCPAddrFromAddrPort(addrPortOf(local, protocol))
		s.gate.RLock()
		terr = ep.Listen(backlog)
		s.gate.RUnlock()
	}
	if terr != nil {
		ep.Close()
		return nil, callError("listen", terr)
	}
	return l, nil
}

// ListenPacket opens a UDP socket at an address of this peer: udp, udp4 or udp6, and an own overlay
// address with a port. An empty host is all of them, of both families for "udp"; so is "::". Port 0
// picks one.
func (s *Stack) ListenPacket(network, address string) (net.PacketConn, error) {
	a, err := parseAddr(context.Background(), network, address)
	if err == nil && a.transport != "udp" {
		err = net.UnknownNetworkError(network)
	}
	if err != nil {
		return nil, opError("listen", network, nil, err)
	}
	wq := new(waiter.Queue)
	ep, protocol, err := s.bind(udp.ProtocolNumber, a, wq)
	if err != nil {
		return nil, opError("listen", network, a.netAddr(), err)
	}
	return newUDPConn(s, wq, ep, protocol), nil
}

// bind returns an endpoint bound to a.
func (s *Stack) bind(transport tcpip.TransportProtocolNumber, a endpointAddr, wq *waiter.Queue) (tcpip.Endpoint, tcpip.NetworkProtocolNumber, error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		return nil, 0, net.ErrClosed
	}
	if !a.wildcard() && !s.isOwn(a.addrPort.Addr()) {
		return nil, 0, callError("bind", &tcpip.ErrBadLocalAddress{})
	}
	protocol, local, v6only := a.local()
	ep, terr := s.ip.g.NewEndpoint(transport, protocol, wq)
	if terr != nil {
		return nil, 0, callError("socket", terr)
	}
	if protocol == header.IPv6ProtocolNumber {
		ep.SocketOptions().SetV6Only(v6only)
	}
	if transport == tcp.ProtocolNumber {
		ep.SocketOptions().SetReuseAddress(true) // as package net: past connections hold no port
	}
	if terr := ep.Bind(local); terr != nil {
		ep.Close()
		return nil, 0, callError("bind", terr)
	}
	return ep, protocol, nil
}
