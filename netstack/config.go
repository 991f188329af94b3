package netstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// Defaults of [Config].
const (
	DefaultMTU            = 1400
	DefaultGSOMaxSegments = 45

	minMTU     = 576  // what every IPv4 host takes (RFC 791)
	minMTUIPv6 = 1280 // what IPv6 asks of every link (RFC 8200, section 5)
	maxMTU     = 65000

	// maxSuperPacket bounds a super-packet with its headers: the IP length field has 16 bits.
	maxSuperPacket = 65000
)

// Config says what a [Stack] is to be. Only Addresses is required.
type Config struct {
	// Addresses are the overlay addresses of this peer. Their prefix lengths play no part here:
	// everything leaves by the device, and its reader decides where it goes.
	Addresses []netip.Prefix

	// MTU of the overlay in bytes, 576 to 65000, and at least 1280 with an IPv6 address. Zero is
	// DefaultMTU.
	MTU int

	// GSOMaxSegments is the most segments one super-packet holds, 1 to 64. Zero is
	// DefaultGSOMaxSegments. It is kept where both ends have the MTU; towards a far end that takes shorter
	// segments only, as many bytes are more of them.
	GSOMaxSegments int

	// Advertise lists networks of the host that other peers may open connections into. Empty: the
	// host is never dialled.
	Advertise []netip.Prefix

	// Host is how advertised networks are reached. Of the host's own addresses only those are, that a network
	// narrower than all addresses holds: who advertises 0.0.0.0/0 wants a way out, not a way in.
	Host Host

	// Limits bound what others may make this stack hold.
	Limits Limits

	// Logger gets what an operator should know; nil discards it.
	Logger *slog.Logger

	clock tcpip.Clock // nil: the real one
}

// Host opens the far side of connections into advertised networks. A nil field is the
// standard behaviour.
type Host struct {
	// Dial opens a connection; network is "tcp" or "udp", address an IP literal with a port. Nil
	// is a net.Dialer. A TCP connection should have a CloseWrite method, as *net.TCPConn
	// has; without one, half-close is not passed on.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Echo sends one ICMP echo request and returns when it was answered. Nil uses the
	// unprivileged ICMP sockets of the system, where it lets the process have them.
	Echo func(ctx context.Context, address netip.Addr, payload []byte) error

	// Addresses are the host's own. Nil asks the system.
	Addresses func() ([]netip.Addr, error)
}

// Limits bound the resources spent on behalf of other peers. Zero fields take the defaults given.
type Limits struct {
	Conns           int           // TCP connections to the host, those being dialled included; 16384
	ConnsPerSource  int           // the same, for one overlay source address; 12288
	Dials           int           // TCP dials to the host in progress; 4096
	DialsPerSource  int           // the same, for one overlay source address; 1024
	DialsPerTarget  int           // the same, for one overlay source address and one address dialled; 256
	Flows           int           // UDP flows to the host; 1024
	FlowsPerSource  int           // the same, for one overlay source address; 256
	FlowIdle        time.Duration // a UDP flow ends after so long without a datagram; 1 minute
	DialTimeout     time.Duration // for the host to answer, and then for the near side; 10 seconds
	Echoes          int           // echo requests to the host in progress; 64
	EchoesPerSource int           // the same, for one overlay source address; 16
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		field *int
		value int
	}{
		{&l.Conns, 16384}, {&l.ConnsPerSource, 12288},
		{&l.Dials, 4096}, {&l.DialsPerSource, 1024}, {&l.DialsPerTarget, 256},
		{&l.Flows, 1024}, {&l.FlowsPerSource, 256},
		{&l.Echoes, 64}, {&l.EchoesPerSource, 16},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	if l.FlowIdle <= 0 {
		l.FlowIdle = time.Minute
	}
	if l.DialTimeout <= 0 {
		l.DialTimeout = 10 * time.Second
	}
	return l
}

// resolve checks c and fills in defaults. The error names the field.
func (c Config) resolve() (Config, error) {
	if len(c.Addresses) == 0 {
		return c, errors.New("netstack: Addresses: at least one is required")
	}
	for i, p := range c.Addresses {
		if !p.IsValid() || !unicast(p.Addr()) || p.Addr().Zone() != "" {
			return c, fmt.Errorf("netstack: Addresses[%d]: %v is no unicast address with a prefix length", i, p)
		}
		if p.Addr().Is4In6() {
			return c, fmt.Errorf("netstack: Addresses[%d]: %v is an IPv4 address in IPv6 form; write it as IPv4", i, p)
		}
	}
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	least := minMTU
	if slices.ContainsFunc(c.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		least = minMTUIPv6
	}
	if c.MTU < least || c.MTU > maxMTU {
		return c, fmt.Errorf("netstack: MTU: %d is not within %d and %d", c.MTU, least, maxMTU)
	}
	if c.GSOMaxSegments == 0 {
		c.GSOMaxSegments = DefaultGSOMaxSegments
	}
	if c.GSOMaxSegments < 1 || c.GSOMaxSegments > 64 {
		return c, fmt.Errorf("netstack: GSOMaxSegments: %d is not within 1 and 64", c.GSOMaxSegments)
	}
	for i, p := range c.Advertise {
		if !p.IsValid() || p.Addr().Is4In6() {
			return c, fmt.Errorf("netstack: Advertise[%d]: %v is no prefix", i, p)
		}
	}
	c.Limits = c.Limits.withDefaults()
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Host.Dial == nil {
		c.Host.Dial = new(net.Dialer).DialContext
	}
	if c.Host.Echo == nil {
		c.Host.Echo = hostEcho
	}
	if c.Host.Addresses == nil {
		c.Host.Addresses = hostAddresses
	}
	return c, nil
}

// unicast reports whether a may be the address of one machine on a network that is more than
// one link.
func unicast(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() &&
		!a.IsLinkLocalUnicast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
