//go:build linux

package lab

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Own has the host take packets to any address of a network for its own, and lets it send from them.
func (h *Host) Own(network string) {
	h.n.t.Helper()
	lo, err := h.ns.LinkByName("lo")
	h.n.wrap(err, "host %s", h.name)
	h.addRoute(network, &netlink.Route{
		LinkIndex: lo.Attrs().Index, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST,
	})
}

// SendNowhere has packets to a network leave by an interface, to one neighbour that there is not. The interface does not look for it:
// it sends, like a card that knows its router.
func (h *Host) SendNowhere(network, ifname string) {
	h.n.t.Helper()
	link, err := h.ns.LinkByName(ifname)
	if err == nil {
		err = h.ns.LinkSetARPOff(link)
	}
	h.n.wrap(err, "host %s: %s without ARP", h.name, ifname)
	h.addRoute(network, &netlink.Route{
		LinkIndex: link.Attrs().Index, Gw: netip.MustParseAddr("198.51.100.254").AsSlice(), Flags: int(netlink.FLAG_ONLINK),
	})
}

func (h *Host) addRoute(to string, r *netlink.Route) {
	h.n.t.Helper()
	r.Dst = ipNet(netip.MustParsePrefix(to))
	h.n.wrap(h.ns.RouteAdd(r), "host %s: route to %s", h.name, to)
}
