package tun

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A bypass is the host routes that lead around the device.
//
// They are the one thing that the kernel does not remove when a process is killed. So that those left behind
// can be told from those of another device in use, each has as its metric the index of the interface it was
// made for: it is stale when there is no such interface any more. Indexes are not
// used again before they have run through 31 bits, or the machine has restarted.
type bypass struct {
	h     *netlink.Handle
	owner int // index of the device's interface
	log   *slog.Logger
	made  []netlink.Route
}

// add makes a host route for each address by the way it is reached now.
func (b *bypass) add(addresses []netip.Addr) error {
	for _, a := range addresses {
		route, ok := b.lookUp(a)
		if !ok {
			continue
		}
		err := b.h.RouteAdd(&route)
		if errors.Is(err, unix.EEXIST) {
			continue // somebody's host route, which does as well and is not ours to remove
		}
		if err != nil {
			return fmt.Errorf("add bypass route to %v: %w", a, permission(err))
		}
		b.made = append(b.made, route)
	}
	return nil
}

// lookUp returns the host route for a, if it takes one.
func (b *bypass) lookUp(a netip.Addr) (netlink.Route, bool) {
	found, err := b.h.RouteGet(a.AsSlice())
	if err != nil || len(found) == 0 {
		b.log.Info("no bypass route: the address is not reachable", "address", a, "error", err)
		return netlink.Route{}, false
	}
	way := found[0]
	if way.Type != unix.RTN_UNICAST {
		return netlink.Route{}, false // this machine's own address, which no route draws away
	}
	route := netlink.Route{
		LinkIndex: way.LinkIndex,
		Dst:       ipNet(netip.PrefixFrom(a, a.BitLen())),
		Gw:        way.Gw,
		Via:       way.Via,
		Protocol:  BypassProtocol,
		Priority:  b.owner,
	}
	if way.Gw == nil && way.Via == nil {
		route.Scope = netlink.SCOPE_LINK
	}
	return route, true
}

// remove removes the routes that add made.
func (b *bypass) remove() error {
	var errs []error
	for _, r := range b.made {
		if err := b.h.RouteDel(&r); err != nil && !gone(err) {
			errs = append(errs, fmt.Errorf("remove bypass route to %v: %w", r.Dst, err))
		}
	}
	b.made = nil
	return errors.Join(errs...)
}

// gone reports whether err says that the route was not there, or its interface.
func gone(err error) bool { return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV) }

// removeStale removes bypass routes of devices that are no more.
func (b *bypass) removeStale() {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := b.h.RouteListFiltered(family, &netlink.Route{Protocol: BypassProtocol}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			b.log.Warn("stale bypass routes are not looked for", "error", err)
			continue
		}
		for _, r := range routes {
			if !b.stale(r) {
				continue
			}
			if err := b.h.RouteDel(&r); err != nil && !gone(err) {
				b.log.Warn("stale bypass route is not removed", "route", r.Dst, "error", err)
				continue
			}
			b.log.Info("removed a bypass route left behind", "route", r.Dst)
		}
	}
}

// stale reports whether the bypass route r leads around a device that is no more.
func (b *bypass) stale(r netlink.Route) bool {
	if r.Priority == b.owner {
		return true // from the last time the index was in use: this device has made none yet
	}
	owner, err := b.h.LinkByIndex(r.Priority)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return true
	}
	return err == nil && owner.Type() != "tuntap"
}
