package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ownAddress reads an overlay address of this peer: a host in a network, 10.9.0.2/24.
func (v value) ownAddress() (netip.Prefix, bool) {
	const example = "want an address with the size of its network, such as 10.9.0.2/24 or fd00:9::2/64"
	text, ok := v.text()
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
			v.wrong("%s has no prefix length: %s", a, example)
		} else {
			v.wrong("%s is not an address: %s", quote(text), example)
		}
		return netip.Prefix{}, false
	}
	a := p.Addr()
	if why := unfit(a); why != "" {
		v.wrong("%s is %s: want an address for one host of the overlay", a, why)
		return netip.Prefix{}, false
	}
	if p.Bits() == 0 {
		v.wrong("%s makes the overlay the whole Internet: %s", p, example)
		return netip.Prefix{}, false
	}
	if p.Bits() < a.BitLen()-1 {
		if a == p.Masked().Addr() {
			v.wrong("%s is the network itself, not a host in it: want such as %s/%d", p, a.Next(), p.Bits())
			return netip.Prefix{}, false
		}
		if a.Is4() && !p.Contains(a.Next()) {
			v.wrong("%s is the broadcast address of %s: want another host in it", a, p.Masked())
			return netip.Prefix{}, false
		}
	}
	return p, true
}

// network reads a prefix without host bits: 192.168.1.0/24.
func (v value) network(example string) (netip.Prefix, bool) {
	text, ok := v.text()
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
			v.wrong("%s has no prefix length: want %s/%d for this address alone", a, a, a.BitLen())
		} else {
			v.wrong("%s is not a network: want such as %s", quote(text), example)
		}
		return netip.Prefix{}, false
	}
	if p.Addr().Is4In6() {
		v.wrong("%s is an IPv4 address mapped into IPv6: write it as IPv4", p)
		return netip.Prefix{}, false
	}
	if m := p.Masked(); m != p {
		v.wrong("%s has bits set beyond its prefix length: want %s for the network or %s/%d for the host",
			p, m, p.Addr(), p.Addr().BitLen())
		return netip.Prefix{}, false
	}
	for _, r := range special {
		if r.net.Bits() <= p.Bits() && r.net.Contains(p.Addr()) {
			v.wrong("%s is %s: want the addresses of other hosts", p, r.what)
			return netip.Prefix{}, false
		}
	}
	return p, true
}

// special are the addresses that mean no single host, or none that another could reach.
var special = []struct {
	net  netip.Prefix
	what string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "no host's address"},
	{netip.MustParsePrefix("127.0.0.0/8"), "a loopback address"},
	{netip.MustParsePrefix("169.254.0.0/16"), "a link-local address"},
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},
	{netip.MustParsePrefix("240.0.0.0/4"), "a reserved address"},
	{netip.MustParsePrefix("::/128"), "no host's address"},
	{netip.MustParsePrefix("::1/128"), "a loopback address"},
	{netip.MustParsePrefix("::ffff:0:0/96"), "an IPv4 address mapped into IPv6"},
	{netip.MustParsePrefix("fe80::/10"), "a link-local address"},
	{netip.MustParsePrefix("ff00::/8"), "a multicast address"},
}

// unfit says why a cannot be the address of a host in the overlay; empty: it can.
func unfit(a netip.Addr) string {
	for _, r := range special {
		if r.net.Contains(a) {
			return r.what
		}
	}
	return ""
}

// endpoint reads where something is reached: host:port, the host a name or a literal address.
func (v value) endpoint() (string, bool) {
	const want = "want host:port, such as relay.example.com:5040, 203.0.113.7:5040 or [2001:db8::7]:5040"
	text, ok := v.text()
	if !ok {
		return "", false
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		v.wrong("%s is not an endpoint: %s", quote(text), want)
		return "", false
	}
	if n, err := portNumber(port); err != nil || n == 0 {
		v.wrong("%s has no usable port: want 1 to 65535", quote(text))
		return "", false
	}
	if host == "" {
		v.wrong("%s names no host: %s", quote(text), want)
		return "", false
	}
	a, err := netip.ParseAddr(host)
	switch {
	case err != nil && !hostName(host):
		v.wrong("%s is neither a host name nor an address: %s", quote(host), want)
		return "", false
	case err == nil && a.IsUnspecified():
		v.wrong("%s is no host's address: want where the other side listens", a)
		return "", false
	case err == nil && (a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})):
		v.wrong("%s does not mean one host: want where the other side listens", a)
		return "", false
	}
	return text, true
}

// portNumber reads a port: digits only, no name of a service.
func portNumber(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err
}

// hostName reports whether s can be looked up: labels of letters, digits, - and _.
func hostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && !('a' <= c|0x20 && c|0x20 <= 'z') && !('0' <= c && c <= '9') {
				return false
			}
		}
	}
	// No top-level domain is a number: 203.0.113.700 is a mistyped address, not a name.
	last := labels[len(labels)-1]
	_, err := strconv.ParseUint(last, 10, 64)
	return err != nil
}

// CheckListen reports what keeps s from being where a socket can be opened: host:port, where
// the host may be empty (all addresses) or a literal address, and port 0 means any free port.
func CheckListen(s string) error {
	_, err := parseListen(s, "want such as :5040, 0.0.0.0:5040 or [::]:5040")
	return err
}

func parseListen(s, want string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s is not a place to listen: %s", quote(s), want)
	}
	n, err := portNumber(port)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s has no usable port: want 1 to 65535, or 0 for any free one", quote(s))
	}
	a := netip.IPv6Unspecified()
	if host != "" {
		if a, err = netip.ParseAddr(host); err != nil {
			return netip.AddrPort{}, fmt.Errorf("%s is not an address of this host: %s", quote(host), want)
		}
	}
	if a.IsMulticast() {
		return netip.AddrPort{}, fmt.Errorf("%s is a multicast address: %s", a, want)
	}
	return netip.AddrPortFrom(a, n), nil
}

func (v value) listen() (string, bool) {
	text, ok := v.text()
	if !ok {
		return "", false
	}
	if err := CheckListen(text); err != nil {
		v.wrong("%s", err)
		return "", false
	}
	return text, true
}

// label reads a name that can stand in NAME.adit: one DNS label.
func (v value) label() (string, bool) {
	text, ok := v.text()
	if !ok {
		return "", false
	}
	good := len(text) <= 63 && text[0] != '-' && text[len(text)-1] != '-'
	for _, c := range []byte(text) {
		good = good && (c == '-' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9')
	}
	if !good {
		v.wrong("%s cannot be a name: want at most 63 of a-z, 0-9 and -, with no - at either end", quote(text))
		return "", false
	}
	return text, true
}
