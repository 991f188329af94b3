// Package tun is the device of a peer that has privileges: a TUN device of the kernel, with its
// addresses and routes, and with the offloads that let super-packets pass between the kernel's
// TCP and the overlay whole. [Memory] is its twin for tests.
//
// The kernel puts a header before each packet in either direction, in the machine's byte order
// (struct virtio_net_hdr of linux/virtio_net.h):
//
//	 0         1         2                   4
//	+---------+---------+---------+---------+---------+---------+
//	|  flags  | gso type|  header length    |   gso size        |
//	+---------+---------+---------+---------+---------+---------+
//	|  checksum start   |  checksum offset  |  packet ...
//	+---------+---------+---------+---------+---------+---------+
//	 6                   8                  10
//
// The device ends with the process: whatever kills it, the kernel takes the interface away, and
// with it the interface's addresses and routes. Only bypass routes (see [Config]) outlive a
// kill, and the next Open removes them.
//
// IP forwarding, packet filters and name resolution are left as they are.
package tun

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
)

// ErrUnavailable is matched by errors of [Open] and [Available] that say that this process cannot
// have a TUN device here, whatever its configuration: another system than Linux, no
// /dev/net/tun, no privilege, or IPv6 addresses on a machine with IPv6 switched off. A
// netstack needs none of these.
var ErrUnavailable = errors.New("tun device unavailable")

// The routes made by this package are marked, as "ip route" shows: "proto 229" those into the device,
// "proto 230" those around it.
const (
	RouteProtocol  = 229
	BypassProtocol = 230
)

const (
	defaultName = "adit0"
	defaultMTU  = 1400
	minMTU      = 576  // every IPv4 host takes this much (RFC 1122, section 3.3.3)
	minMTUv6    = 1280 // every IPv6 link carries this much (RFC 8200, section 5)
	maxPacket   = 65535
)

// Config says what the device is to be.
type Config struct {
	Name string // of the interface, at most 15 bytes; empty: adit0
	MTU  int    // bytes of an IP packet; 0: 1400

	// Addresses of the interface, with the prefix that is on-link: the kernel routes that to the
	// device by itself.
	Addresses []netip.Prefix

	// Routes into the device. A default route is made as its two halves (0.0.0.0/1 and
	// 128.0.0.0/1; ::/1 and 8000::/1), so that the machine's own stays as it is. It draws the underlay's
	// datagrams into the device as well, unless there are routes for these: see Bypass.
	Routes []netip.Prefix

	// Bypass has the underlay addresses that must not be reached through the device: relays and
	// remotes with endpoints. Each that Routes cover gets a host route by the way it is
	// reached, from Open to Close: when the machine's own routes change it follows them, and
	// while there is no way to the address it says so. Those learnt later are given to Device.Bypass.
	Bypass []netip.Addr

	// GSOMaxSize limits the super-packets that the kernel makes, in bytes, with some 320
	// of them the kernel's own reserve. 0: as many segments as fit a sealed message of 65,400 bytes.
	GSOMaxSize int

	Logger *slog.Logger // nil: no log
}

// Stats counts what a device dropped. What the kernel dropped it counts itself: ip -s link.
type Stats struct {
	Malformed uint64 `json:"malformed"` // packets whose description by the kernel did not fit them
}

// parse returns c with its defaults in place, or what is wrong with it.
func (c Config) parse() (Config, error) {
	if c.Name == "" {
		c.Name = defaultName
	}
	if c.MTU == 0 {
		c.MTU = defaultMTU
	}
	if c.MTU < minMTU || c.MTU > maxPacket {
		return c, fmt.Errorf("tun: MTU %d: must be from %d to %d", c.MTU, minMTU, maxPacket)
	}
	for _, a := range c.Addresses {
		if !a.IsValid() || a.Addr().Is4In6() || a.Addr().Zone() != "" || a.Addr().IsUnspecified() || a.Addr().IsMulticast() || a.Bits() == 0 {
			return c, fmt.Errorf("tun: address %v: must be a host's address with a prefix length, like 10.9.0.2/24", a)
		}
		if a.Addr().Is6() && c.MTU < minMTUv6 {
			return c, fmt.Errorf("tun: MTU %d: with IPv6 address %v it must be at least %d", c.MTU, a, minMTUv6)
		}
	}
	for _, r := range c.Routes {
		if !r.IsValid() || r.Addr().Is4In6() {
			return c, fmt.Errorf("tun: route %v: must be a prefix, like 10.9.0.0/16", r)
		}
	}
	for _, a := range c.Bypass {
		if !a.IsValid() {
			return c, errors.New("tun: bypass: address missing")
		}
	}
	if c.GSOMaxSize == 0 {
		c.GSOMaxSize = gsoMaxSize(c.MTU)
	}
	if c.GSOMaxSize < 0 || c.GSOMaxSize > gsoLimit {
		return c, fmt.Errorf("tun: GSO maximum size %d: must be from 1 to %d", c.GSOMaxSize, gsoLimit)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

const (
	gsoLimit = 65536 // beyond it lies BIG TCP, whose packets exceed the IP length field

	// What the kernel's TCP takes off the interface's GSO size before it divides by the segment
	// size: MAX_TCP_HEADER + 1.
	gsoReserve = 321

	sealedMessage  = 65400 // bytes of sealed datagrams that go out in one message
	sealedOverhead = 44    // bytes on top of an IP packet, a relay's header included
	leastHeaders   = 52    // IPv4 and TCP with timestamps
)

// gsoMaxSize returns the GSO size that gives super-packets of as many whole segments as fit one
// message of sealed datagrams.
func gsoMaxSize(mtu int) int {
	segments := max(1, min(64, sealedMessage/(mtu+sealedOverhead)))
	return min(gsoLimit, segments*(mtu-leastHeaders)+gsoReserve)
}
