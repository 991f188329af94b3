package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Socks is the network behind a SOCKS5 proxy. It only dials, and only TCP.
type Socks struct {
	Proxy string // host:port

	// Dial reaches the proxy; nil is the kernel's network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

var errSocksDialsOnly = errors.New("a SOCKS5 proxy only dials")

// DialContext connects to a literal address through the proxy.
func (s Socks) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" {
		return nil, errSocksDialsOnly
	}
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	dial := s.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	c, err := dial(ctx, "tcp", s.Proxy)
	if err != nil {
		return nil, fmt.Errorf("the proxy: %w", err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		c.SetDeadline(deadline)
	}
	if err := connect(c, target); err != nil {
		c.Close()
		return nil, fmt.Errorf("SOCKS5: %w", err)
	}
	c.SetDeadline(time.Time{})
	return c, nil
}

// connect has the conversation of RFC 1928: no authentication, CONNECT.
func connect(c net.Conn, target netip.AddrPort) error {
	if _, err := c.Write([]byte{5, 1, 0}); err != nil {
		return err
	}
	var b [22]byte // the longest answer, with an IPv6 address
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return err
	}
	request := []byte{5, 1, 0, 1}
	if target.Addr().Is6() {
		request[3] = 4
	}
	request = append(request, target.Addr().AsSlice()...)
	request = binary.BigEndian.AppendUint16(request, target.Port())
	if _, err := c.Write(request); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b[:4]); err != nil {
		return err
	}
	if b[1] != 0 {
		return Reply(b[1])
	}
	bound := 4 + 2
	if b[3] == 4 {
		bound = 16 + 2
	}
	_, err := io.ReadFull(c, b[:bound])
	return err
}

// Reply is why a proxy refused, as RFC 1928 numbers it.
type Reply byte

func (r Reply) Error() string { return fmt.Sprintf("reply %d", byte(r)) }

// Timeout reports whether the dial behind the proxy took too long, as an error of package net does.
func (r Reply) Timeout() bool { return r == 6 }

// Is reports whether target is the system's error for the same reason.
func (r Reply) Is(target error) bool {
	return r == 3 && target == syscall.ENETUNREACH || r == 4 && target == syscall.EHOSTUNREACH || r == 5 && target == syscall.ECONNREFUSED
}

// Listen fails.
func (Socks) Listen(string, string) (net.Listener, error) { return nil, errSocksDialsOnly }

// ListenPacket fails.
func (Socks) ListenPacket(string, string) (net.PacketConn, error) { return nil, errSocksDialsOnly }
