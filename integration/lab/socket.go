//go:build linux

package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
)

// Listen is [net.Listen] in the host. The listener is closed when the test ends, if not before.
func (h *Host) Listen(network, address string) net.Listener {
	h.n.t.Helper()
	var l net.Listener
	var err error
	h.Do(func() { l, err = net.Listen(network, address) })
	h.n.wrap(err, "host %s", h.name)
	h.closeLater(l)
	return l
}

// ListenPacket is [net.ListenPacket] in the host. For a UDP network the result is a
// *[net.UDPConn]. It is closed when the test ends, if not before.
func (h *Host) ListenPacket(network, address string) net.PacketConn {
	h.n.t.Helper()
	var c net.PacketConn
	var err error
	h.Do(func() { c, err = net.ListenPacket(network, address) })
	h.n.wrap(err, "host %s", h.name)
	h.closeLater(c)
	return c
}

// Dial is [net.Dial] in the host, bounded by the test's context. The address must be an IP
// address and a port: a name would be looked up, and perhaps dialled, by goroutines that are
// not in the host. The connection is closed when the test ends, if not before.
func (h *Host) Dial(network, address string) (net.Conn, error) {
	return h.DialContext(h.n.t.Context(), network, address)
}

// DialContext is Dial with a context.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dialling in host %s: %w", h.name, err)
	}
	var c net.Conn
	var err error
	if e := h.ns.do(func() { c, err = new(net.Dialer).DialContext(ctx, network, address) }); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", h.name, err)
	}
	h.closeLater(c)
	return c, nil
}

// closeLater lets no forgotten socket keep a namespace alive.
func (h *Host) closeLater(c io.Closer) {
	h.n.onClose(func() { c.Close() })
}
