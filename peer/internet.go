package peer

import (
	"net/netip"
	"slices"

	"github.com/adit-overlay/adit/config"
)

// A network wider than these is nobody's own: who sends it into the overlay means the internet, whether by a default route, by its
// halves, or by a list of all but some networks.
const (
	ownBits4 = 8  // 10.0.0.0/8
	ownBits6 = 16 // of 2000::/3, where the internet is: fd00::/8 is everybody's own
)

var internet6 = netip.MustParsePrefix("2000::/3")

// toInternet reports whether r sends the internet, of r's family, into the overlay.
func toInternet(r netip.Prefix) bool {
	if r.Addr().Is4() {
		return r.Bits() < ownBits4
	}
	return r.Bits() < ownBits6 && r.Overlaps(internet6)
}

// beside is the family whose internet goes beside the overlay while that of the other goes by it: IPv4, IPv6, or none.
func beside(routes []netip.Prefix) string {
	by4 := slices.ContainsFunc(routes, func(r netip.Prefix) bool { return r.Addr().Is4() && toInternet(r) })
	by6 := slices.ContainsFunc(routes, func(r netip.Prefix) bool { return r.Addr().Is6() && toInternet(r) })
	switch {
	case by4 && !by6:
		return "IPv6"
	case by6 && !by4:
		return "IPv4"
	}
	return ""
}

const besideWhy = "allowed_ips send the internet of the other family alone into it: want 0.0.0.0/0 and ::/0"

// Beside tells of a full tunnel that is none (RFC 7359): the family, IPv4 or IPv6, that the host goes on using beside
// the tunnel while it sends the internet of the other into it, and why. Both are empty if there is none, and in
// netstack mode, which routes nothing.
func (c *Config) Beside() (family, because string) {
	if c.Mode == config.ModeNetstack {
		return "", ""
	}
	if family = beside(c.routes()); family == "" {
		return "", ""
	}
	return family, besideWhy
}
