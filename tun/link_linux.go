package tun

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// txQueueLen is how many packets the kernel holds for the reader of the device.
const txQueueLen = 1000

const addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE of linux/if_link.h

// A link is the interface as the kernel's routing sees it.
type link struct {
	h      *netlink.Handle // stays in the namespace it was made in
	link   netlink.Link
	log    *slog.Logger
	bypass bypass
	watch  *watch // nil if there are no routes into the device, and so nothing to bypass
}

// configureLink gives the interface c.Name all that c says of it and sets it up. On an error the
// bypass routes are undone; all else goes with the interface.
func configureLink(c Config) (_ *link, err error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	l := &link{h: h, log: c.Logger.With("interface", c.Name)}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.link, err = h.LinkByName(c.Name); err != nil {
		return nil, fmt.Errorf("find interface: %w", err)
	}
	l.bypass.h, l.bypass.owner, l.bypass.log, l.bypass.plan = h, l.link.Attrs().Index, l.log, planRoutes(c)
	l.bypass.removeStale()

	if err := l.setProperties(c); err != nil {
		return nil, err
	}
	if err := l.setAddresses(c.Addresses); err != nil {
		return nil, err
	}
	if err := l.openBypass(c.Bypass); err != nil {
		return nil, err
	}
	if err := h.LinkSetUp(l.link); err != nil {
		return nil, fmt.Errorf("set up: %w", permission(err))
	}
	if err := l.setRoutes(l.bypass.plan); err != nil {
		return nil, err
	}
	l.awaitAddresses(c.Addresses)
	return l, nil
}

// openBypass makes the bypass routes, and has them follow the machine's own from then on.
func (l *link) openBypass(addresses []netip.Addr) error {
	if len(l.bypass.plan) == 0 {
		return nil
	}
	w, err := newWatch() // before the first look, so that nothing is missed
	if err != nil {
		return err
	}
	l.watch = w
	err = l.bypass.open(addresses)
	go w.run(func() {
		if err := l.bypass.follow(); err != nil {
			l.log.Warn("bypass routes do not follow the machine's", "error", err)
		}
	})
	return err
}

// close removes what does not go with the interface.
func (l *link) close() error {
	if l.watch != nil {
		l.watch.close()
	}
	err := l.bypass.close()
	l.h.Close()
	return err
}

func (l *link) setProperties(c Config) error {
	if err := l.h.LinkSetMTU(l.link, c.MTU); err != nil {
		return fmt.Errorf("set MTU %d: %w", c.MTU, permission(err))
	}
	if err := l.h.LinkSetTxQLen(l.link, txQueueLen); err != nil {
		return fmt.Errorf("set queue length: %w", permission(err))
	}
	// Speed only: super-packets that are longer are cut into two messages.
	if err := l.h.LinkSetGSOMaxSize(l.link, c.GSOMaxSize); err != nil {
		l.log.Warn("super-packets are not limited in size", "error", err)
	}
	// A link-local address would have the kernel send router solicitations into the overlay. Where
	// IPv6 is switched off, or the MTU is too small for it, there is no such setting and no need.
	if err := l.h.LinkSetIP6AddrGenMode(l.link, addrGenModeNone); err != nil {
		l.log.Debug("IPv6 link-local address is not suppressed", "error", err)
	}
	return nil
}

func (l *link) setAddresses(addresses []netip.Prefix) error {
	for _, a := range addresses {
		addr := &netlink.Addr{IPNet: ipNet(a)}
		if a.Addr().Is4() {
			addr.Broadcast = net.IPv4zero // none: the overlay has no broadcast
		}
		if a.Addr().Is6() {
			// Nobody on the link could answer for it, and an address under examination cannot be used.
			addr.Flags = unix.IFA_F_NODAD
		}
		err := l.h.AddrAdd(l.link, addr)
		if a.Addr().Is6() && (errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENODEV)) {
			return fmt.Errorf("%w: add address %v: IPv6 is switched off here (see sysctl net.ipv6.conf.all.disable_ipv6) (%w)", ErrUnavailable, a, err)
		}
		if err != nil {
			return fmt.Errorf("add address %v: %w", a, permission(err))
		}
	}
	return nil
}

// The kernel takes IPv6 addresses into use by a worker of its own, a moment after the interface is up. What
// arrives before that is dropped.
const (
	addressPatience = 2 * time.Second // on a machine so busy that the worker is late
	addressPoll     = time.Millisecond
)

// awaitAddresses returns when the kernel delivers to all of the addresses.
func (l *link) awaitAddresses(addresses []netip.Prefix) {
	late := time.Now().Add(addressPatience)
	for _, a := range addresses {
		for a.Addr().Is6() && !l.delivers(a.Addr()) {
			if time.Now().After(late) {
				l.log.Warn("an address is not in use yet", "address", a.Addr())
				return
			}
			time.Sleep(addressPoll)
		}
	}
}

// delivers reports whether packets to a are taken for this host's own.
func (l *link) delivers(a netip.Addr) bool {
	routes, err := l.h.RouteGet(a.AsSlice())
	return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
}

func (l *link) setRoutes(plan []netip.Prefix) error {
	for _, r := range plan {
		err := l.h.RouteAdd(&netlink.Route{
			LinkIndex: l.link.Attrs().Index,
			Dst:       ipNet(r),
			Scope:     netlink.SCOPE_LINK,
			Protocol:  RouteProtocol,
		})
		switch {
		case errors.Is(err, unix.EEXIST):
			return fmt.Errorf("add route %v: there is such a route already, by another interface", r)
		case err != nil:
			return fmt.Errorf("add route %v: %w", r, permission(err))
		}
	}
	return nil
}

// permission makes an error of missing privilege one that matches ErrUnavailable.
func permission(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return noPrivilege(err)
	}
	return err
}

// ipNet keeps the host bits of p.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
