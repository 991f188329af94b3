package traffic

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Kernel is the kernel's network, in the network namespace of the process. What is dialled comes from one of
// Addrs: while the host does not have it, the dial fails, and does not leave the overlay.
type Kernel struct{ Addrs []netip.Addr }

// DialContext is that of [net.Dialer].
func (k Kernel) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	for _, a := range k.Addrs {
		if a.Is4() != to.Addr().Is4() {
			continue
		}
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: a.AsSlice()}}
		if strings.HasPrefix(network, "udp") {
			d.LocalAddr = &net.UDPAddr{IP: a.AsSlice()}
		}
		return d.DialContext(ctx, network, address)
	}
	return nil, fmt.Errorf("no address to reach %s from", address)
}

// Listen is [net.Listen].
func (Kernel) Listen(network, address string) (net.Listener, error) {
	return net.Listen(network, address)
}

// ListenPacket is [net.ListenPacket].
func (Kernel) ListenPacket(network, address string) (net.PacketConn, error) {
	return net.ListenPacket(network, address)
}
