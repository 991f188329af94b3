package tun

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A hop is where a route leads next: an interface, and a gateway there unless the destination itself is a neighbour.
type hop struct {
	link    int
	gateway netip.Addr
}

// nowhere is the hop of an address that is not reachable.
var nowhere hop

func (w hop) String() string {
	switch {
	case w == nowhere:
		return "nothing"
	case w.gateway.IsValid():
		return fmt.Sprintf("%v on interface %d", w.gateway, w.link)
	}
	return fmt.Sprintf("interface %d", w.link)
}

// hopOf is the hop of a route: of one with several ways, the first.
func hopOf(r netlink.Route) hop {
	if r.Type != unix.RTN_UNICAST {
		return nowhere
	}
	link, gw, via := r.LinkIndex, r.Gw, r.Via
	for _, n := range r.MultiPath {
		if n.Flags&unix.RTNH_F_DEAD == 0 {
			link, gw, via = n.LinkIndex, n.Gw, n.Via
			break
		}
	}
	// The gateway of an IPv4 route may have an IPv6 address (RFC 5549).
	if v, ok := via.(*netlink.Via); ok {
		gw = v.Addr
	}
	gateway, _ := netip.AddrFromSlice(gw)
	return hop{link, gateway.Unmap()}
}

// put has r, whose destination is set, lead to the hop.
func (w hop) put(r *netlink.Route) {
	if w == nowhere {
		r.Type = unix.RTN_UNREACHABLE
		return
	}
	r.Type, r.LinkIndex = unix.RTN_UNICAST, w.link
	switch to := destination(*r).Addr(); {
	case !w.gateway.IsValid():
		r.Scope = netlink.SCOPE_LINK
	case w.gateway.Is4() == to.Is4():
		r.Gw = w.gateway.AsSlice()
	default:
		r.Via = &netlink.Via{AddrFamily: familyOf(w.gateway), Addr: w.gateway.AsSlice()}
	}
}

// lookUp does with routes what the kernel does with its main table: the longest prefix wins, and of equals the
// smallest metric. There is no asking the kernel once there are routes into the device: these would be the answer.
func lookUp(routes []netlink.Route, a netip.Addr) hop {
	var best netlink.Route
	found := false
	for _, r := range routes {
		if r.Tos != 0 || r.Flags&unix.RTNH_F_DEAD != 0 || !destination(r).Contains(a) {
			continue
		}
		longer := destination(r).Bits() - destination(best).Bits()
		if !found || longer > 0 || longer == 0 && r.Priority < best.Priority {
			best, found = r, true
		}
	}
	if !found {
		return nowhere
	}
	return hopOf(best)
}

// destination is the prefix that r is a route to.
func destination(r netlink.Route) netip.Prefix {
	if r.Dst == nil {
		if r.Family == netlink.FAMILY_V6 {
			return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	a, _ := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// mainRoutes lists the routes of one family in the main table.
func mainRoutes(h *netlink.Handle, family int) ([]netlink.Route, error) {
	for tries := 0; ; tries++ {
		routes, err := h.RouteListFiltered(family, &netlink.Route{}, 0)
		if errors.Is(err, netlink.ErrDumpInterrupted) && tries < dumpTries {
			continue // they changed meanwhile
		}
		return routes, err
	}
}

const dumpTries = 10
