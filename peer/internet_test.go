package peer

import (
	"net/netip"
	"strings"
	"testing"
)

func TestFamilyBesideFullTunnelIsTold(t *testing.T) {
	for routes, want := range map[string]string{
		"":                           "",
		"10.9.0.0/24":                "",
		"10.0.0.0/8 fd00::/8":        "",
		"0.0.0.0/0":                  "IPv6",
		"0.0.0.0/0 fd00:9::3/128":    "IPv6",
		"0.0.0.0/1 128.0.0.0/1":      "IPv6",
		"0.0.0.0/5 8.0.0.0/7":        "IPv6",
		"::/0":                       "IPv4",
		"2000::/3 10.9.0.3/32":       "IPv4",
		"0.0.0.0/0 ::/0":             "",
		"0.0.0.0/1 8000::/1 ::/1":    "",
		"0.0.0.0/0 2001:db8::/32":    "IPv6",
		"172.16.0.0/12 2001:db8::/8": "IPv4",
	} {
		var parsed []netip.Prefix
		for _, r := range strings.Fields(routes) {
			parsed = append(parsed, netip.MustParsePrefix(r))
		}
		if got := beside(parsed); got != want {
			t.Errorf("%q: beside goes %q, want %q", routes, got, want)
		}
	}
}
