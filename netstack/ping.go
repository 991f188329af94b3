package netstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// pingPayload is a sequence to tell the answer by, before 48 bytes as ping(8) sends.
const pingPayload = 8 + 48

// Ping sends one ICMP echo request to an overlay address and waits for the answer until ctx ends. It
// returns the round-trip time. It does not ask again: a lost packet is the caller's to judge.
func (s *Stack) Ping(ctx context.Context, to netip.Addr) (time.Duration, error) {
	to = to.Unmap()
	addr := &net.IPAddr{IP: to.AsSlice()}
	fail := func(err error) (time.Duration, error) {
		return 0, &net.OpError{Op: "ping", Net: "ip", Addr: addr, Err: err}
	}
	if !to.IsValid() {
		return fail(&net.AddrError{Err: "no IP address"})
	}

	var reads waitPoint
	wq := new(waiter.Queue)
	reads.watch(wq, waiter.ReadableEvents|waiter.EventHUp|waiter.EventErr)
	ep, err := s.pingEndpoint(to, wq)
	if err != nil {
		return fail(err)
	}
	defer ep.Close()

	request := make([]byte, header.ICMPv4MinimumSize+pingPayload)
	request[0] = byte(header.ICMPv4Echo)
	if to.Is6() {
		request[0] = byte(header.ICMPv6EchoRequest)
	}
	mark := request[header.ICMPv4MinimumSize:][:8]
	rand.Read(mark)
	binary.BigEndian.PutUint16(request[6:], 1)
	start := time.Now()
	if _, terr := ep.Write(bytes.NewReader(request), tcpip.WriteOptions{}); terr != nil {
		return fail(callError("write", terr))
	}
	for {
		answer := make([]byte, len(request))
		w := tcpip.SliceWriter(answer)
		_, terr := ep.Read(&w, tcpip.ReadOptions{})
		switch terr.(type) {
		case nil:
			if bytes.Equal(answer[header.ICMPv4MinimumSize:][:8], mark) {
				return time.Since(start), nil
			}
		case *tcpip.ErrWouldBlock:
			if reads.wait(ctx.Done(), net.ErrClosed) != nil {
				return fail(contextError(ctx))
			}
			if s.closing.Err() != nil {
				return fail(net.ErrClosed)
			}
		case *tcpip.ErrClosedForReceive:
			return fail(net.ErrClosed)
		default:
			return fail(callError("read", terr))
		}
	}
}

// pingEndpoint returns an ICMP endpoint connected to an address.
func (s *Stack) pingEndpoint(to netip.Addr, wq *waiter.Queue) (tcpip.Endpoint, error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	transport := icmp.ProtocolNumber4
	if to.Is6() {
		transport = icmp.ProtocolNumber6
	}
	ep, terr := s.ip.g.NewEndpoint(transport, protocolOf(to), wq)
	if terr != nil {
		return nil, callError("socket", terr)
	}
	if terr := ep.Connect(tcpip.FullAddress{Addr: addressOf(to)}); terr != nil {
		ep.Close()
		return nil, callError("connect", terr)
	}
	return ep, nil
}
