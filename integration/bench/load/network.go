// Package load makes traffic and measures what becomes of it. It is the same for everything that is
// compared: it asks for a [Network] to dial and listen on, and does not know whether that is the kernel's, a
// proxy's or a TCP/IP stack's inside this process.
//
// An [Agent] is one end: it serves what the other end asks for (see server.go), and drives
// the load it is told to by a program that reaches it by a Unix socket, whatever network
// namespace it is in.
//
// Bytes are counted where they are received. A closed loop has a fixed number of clients, each waiting for its
// answer; an open loop begins requests at a fixed rate whatever becomes of them, and counts
// latency from the moment the request was to begin.
package load

import (
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// A Network is where the load goes. Addresses are literal IP addresses with ports.
type Network interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	Listen(network, address string) (net.Listener, error)
	ListenPacket(network, address string) (net.PacketConn, error)
}

// Kernel is the network of the kernel, in the network namespace of the process.
type Kernel struct {
	// Congestion is the congestion control of TCP connections, by its name in Linux; empty: the system's default.
	Congestion string
}

// DialContext is that of [net.Dialer].
func (k Kernel) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Control: k.control}
	return d.DialContext(ctx, network, address)
}

// Listen is [net.Listen].
func (k Kernel) Listen(network, address string) (net.Listener, error) {
	l := net.ListenConfig{Control: k.control}
	return l.Listen(context.Background(), network, address)
}

// ListenPacket is [net.ListenPacket].
func (Kernel) ListenPacket(network, address string) (net.PacketConn, error) {
	return net.ListenPacket(network, address)
}

// control sets up a socket before it is used.
func (k Kernel) control(network, _ string, c syscall.RawConn) error {
	if k.Congestion == "" || !strings.HasPrefix(network, "tcp") {
		return nil
	}
	var err error
	if e := c.Control(func(fd uintptr) { err = setCongestion(fd, k.Congestion) }); e != nil {
		return e
	}
	if err != nil {
		return fmt.Errorf("congestion control %s: %w", k.Congestion, err)
	}
	return nil
}
