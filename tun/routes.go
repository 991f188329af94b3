package tun

import (
	"net/netip"
	"slices"
)

// planRoutes returns the routes to be made for c: default routes as their halves, without those
// that the kernel makes for the on-link prefixes of the addresses, each once.
func planRoutes(c Config) []netip.Prefix {
	var plan []netip.Prefix
	for _, r := range c.Routes {
		for _, r := range halves(r.Masked()) {
			if !onLink(c.Addresses, r) && !slices.Contains(plan, r) {
				plan = append(plan, r)
			}
		}
	}
	return plan
}

// halves returns a default route as the two routes that together cover the same and win over any other
// default route; another route as it is.
func halves(r netip.Prefix) []netip.Prefix {
	if r.Bits() > 0 {
		return []netip.Prefix{r}
	}
	upper := r.Addr().AsSlice()
	upper[0] = 0x80
	high, _ := netip.AddrFromSlice(upper)
	return []netip.Prefix{netip.PrefixFrom(r.Addr(), 1), netip.PrefixFrom(high, 1)}
}

// onLink reports whether one of the addresses has all of r on-link.
func onLink(addresses []netip.Prefix, r netip.Prefix) bool {
	return slices.ContainsFunc(addresses, func(a netip.Prefix) bool {
		return a.Bits() <= r.Bits() && a.Contains(r.Addr())
	})
}

// planBypass returns those of the addresses that the planned routes would draw into the device, each
// once.
func planBypass(addresses []netip.Addr, plan []netip.Prefix) []netip.Addr {
	var drawn []netip.Addr
	for _, a := range addresses {
		a = a.Unmap().WithZone("")
		covered := slices.ContainsFunc(plan, func(r netip.Prefix) bool { return r.Contains(a) })
		if covered && !slices.Contains(drawn, a) {
			drawn = append(drawn, a)
		}
	}
	return drawn
}
