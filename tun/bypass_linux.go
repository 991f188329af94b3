package tun

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"

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
	plan  []netip.Prefix // the routes into the device

	mu      sync.Mutex // guards what follows, and is held while routes are changed
	detours []*detour  // those that are known from the beginning first, then from the oldest
	known   int        // how many of them are from the beginning
	closed  bool
}

// maxLearnt bounds the detours to addresses that were learnt on the way.
const maxLearnt = 256

// A detour is the host route to one address. While there is no way to the address the route says so: without one the
// datagrams would be drawn into the device, sealed, sent to the same address, and drawn in again.
type detour struct {
	to   netip.Addr
	way  hop           // where the machine's own routes lead
	made netlink.Route // what add or follow made of it last
}

// open makes the detours that are known from the beginning, before there are routes into the device.
func (b *bypass) open(addresses []netip.Addr) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range planBypass(addresses, b.plan) {
		if err := b.add(a); err != nil {
			return err
		}
	}
	b.known = len(b.detours)
	return nil
}

// learn makes a detour to a, if the device would draw it in. Of too many the oldest that was learnt is forgotten.
func (b *bypass) learn(a netip.Addr) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return net.ErrClosed
	}
	for _, a := range planBypass([]netip.Addr{a}, b.plan) {
		if slices.ContainsFunc(b.detours, func(d *detour) bool { return d.to == a }) {
			continue
		}
		if err := b.add(a); err != nil {
			return err
		}
		if len(b.detours) > b.known+maxLearnt {
			oldest := b.detours[b.known]
			b.detours = slices.Delete(b.detours, b.known, b.known+1)
			return b.unmake(oldest)
		}
	}
	return nil
}

// add makes a host route to a by the way it is reached now.
func (b *bypass) add(a netip.Addr) error {
	way, err := b.ask(a)
	if errors.Is(err, errLocal) {
		return nil
	}
	own := b.ownWay(a)
	if way.link == b.owner {
		way = own // the device's routes are there already
	}
	if way == nowhere {
		b.log.Warn("an underlay address is not reachable", "address", a, "error", err)
	}
	d := &detour{to: a, way: own, made: b.route(a, way)}
	if err := b.make(d.made); err != nil {
		return fmt.Errorf("add bypass route to %v: %w", a, permission(err))
	}
	b.detours = append(b.detours, d)
	return nil
}

// errLocal is of the machine's own addresses, which no route draws away.
var errLocal = errors.New("the machine's own address")

// ask asks the kernel how a is reached. All of the machine's policy is in the answer, until there are routes into the device.
func (b *bypass) ask(a netip.Addr) (hop, error) {
	found, err := b.h.RouteGet(a.AsSlice())
	if err != nil || len(found) == 0 {
		return nowhere, err
	}
	if found[0].Type == unix.RTN_LOCAL {
		return nowhere, errLocal
	}
	return hopOf(found[0]), nil
}

// ownWay looks up where the machine's own routes lead to a: nowhere, if they cannot be read.
func (b *bypass) ownWay(a netip.Addr) hop {
	routes, err := mainRoutes(b.h, familyOf(a))
	if err != nil {
		return nowhere
	}
	return lookUp(b.foreign(routes), a)
}

// route is the host route to a by way.
func (b *bypass) route(a netip.Addr, way hop) netlink.Route {
	r := netlink.Route{Dst: ipNet(netip.PrefixFrom(a, a.BitLen())), Protocol: BypassProtocol, Priority: b.owner}
	way.put(&r)
	return r
}

// make adds a route. One that is there is somebody's, does as well, and is not ours to remove.
func (b *bypass) make(r netlink.Route) error {
	if err := b.h.RouteAdd(&r); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// ours reports whether r is a bypass route of this device.
func (b *bypass) ours(r netlink.Route) bool {
	return r.Protocol == BypassProtocol && r.Priority == b.owner
}

// foreign returns the routes that are not of this device, neither into it nor around it.
func (b *bypass) foreign(routes []netlink.Route) []netlink.Route {
	var rest []netlink.Route
	for _, r := range routes {
		if r.LinkIndex != b.owner && !b.ours(r) {
			rest = append(rest, r)
		}
	}
	return rest
}

// follow has the host routes lead where the machine's own routes have come to lead, and makes those again that went
// with an interface.
func (b *bypass) follow() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if !b.has(family) {
			continue
		}
		routes, err := mainRoutes(b.h, family)
		if err != nil {
			errs = append(errs, fmt.Errorf("list routes: %w", err))
			continue
		}
		foreign := b.foreign(routes)
		for _, d := range b.detours {
			if familyOf(d.to) == family {
				errs = append(errs, b.followOne(d, routes, foreign))
			}
		}
	}
	return errors.Join(errs...)
}

func (b *bypass) has(family int) bool {
	for _, d := range b.detours {
		if familyOf(d.to) == family {
			return true
		}
	}
	return false
}

func (b *bypass) followOne(d *detour, routes, foreign []netlink.Route) error {
	if way := lookUp(foreign, d.to); way != d.way {
		b.log.Info("an underlay address is reached another way", "address", d.to, "by", way)
		d.way, d.made = way, b.route(d.to, way)
	}
	err := error(nil)
	switch have, ok := b.find(routes, d.to); {
	case !ok:
		err = b.make(d.made)
	case hopOf(have) != hopOf(d.made):
		err = b.h.RouteReplace(&d.made) // in one step: the address is never without
	}
	if err != nil {
		return fmt.Errorf("bypass route to %v: %w", d.to, err)
	}
	return nil
}

// find returns our host route to a.
func (b *bypass) find(routes []netlink.Route, a netip.Addr) (netlink.Route, bool) {
	for _, r := range routes {
		if b.ours(r) && destination(r) == netip.PrefixFrom(a, a.BitLen()) {
			return r, true
		}
	}
	return netlink.Route{}, false
}

// close removes the routes of the detours. There will be no others.
func (b *bypass) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	var errs []error
	for _, d := range b.detours {
		errs = append(errs, b.unmake(d))
	}
	b.detours = nil
	return errors.Join(errs...)
}

func (b *bypass) unmake(d *detour) error {
	if err := b.h.RouteDel(&d.made); err != nil && !gone(err) {
		return fmt.Errorf("remove bypass route to %v: %w", d.to, err)
	}
	return nil
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
