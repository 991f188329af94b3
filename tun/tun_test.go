package tun

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestConfigIsChecked(t *testing.T) {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	for _, tt := range []struct {
		name string
		c    Config
		want string // in the error; empty: none
	}{
		{name: "zero", c: Config{}},
		{name: "everything", c: Config{
			Name: "x", MTU: 1280, GSOMaxSize: 65536,
			Addresses: []netip.Prefix{prefix("10.9.0.2/24"), prefix("fd00::1/128")},
			Routes:    []netip.Prefix{prefix("0.0.0.0/0"), prefix("10.1.2.3/8")},
			Bypass:    []netip.Addr{addr("203.0.113.7")},
		}},
		{name: "small MTU", c: Config{MTU: 575}, want: "MTU 575"},
		{name: "negative MTU", c: Config{MTU: -1}, want: "MTU -1"},
		{name: "large MTU", c: Config{MTU: 65536}, want: "MTU 65536"},
		{name: "small MTU for IPv6", c: Config{MTU: 1279, Addresses: []netip.Prefix{prefix("fd00::1/64")}}, want: "1280"},
		{name: "no address", c: Config{Addresses: []netip.Prefix{{}}}, want: "address"},
		{name: "address of everything", c: Config{Addresses: []netip.Prefix{prefix("10.0.0.1/0")}}, want: "10.0.0.1/0"},
		{name: "unspecified address", c: Config{Addresses: []netip.Prefix{prefix("::/64")}}, want: "::/64"},
		{name: "multicast address", c: Config{Addresses: []netip.Prefix{prefix("224.0.0.1/24")}}, want: "224.0.0.1/24"},
		{name: "mapped address", c: Config{Addresses: []netip.Prefix{prefix("::ffff:10.0.0.1/120")}}, want: "address"},
		{name: "no route", c: Config{Routes: []netip.Prefix{{}}}, want: "route"},
		{name: "mapped route", c: Config{Routes: []netip.Prefix{prefix("::ffff:10.0.0.0/104")}}, want: "route"},
		{name: "no bypass", c: Config{Bypass: []netip.Addr{{}}}, want: "bypass"},
		{name: "GSO size", c: Config{GSOMaxSize: 65537}, want: "65537"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := tt.c.parse()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
			if err == nil && (c.Name == "" || c.MTU == 0 || c.GSOMaxSize == 0 || c.Logger == nil) {
				t.Errorf("defaults are missing: %+v", c)
			}
		})
	}
}

// TestGSOMaxSize computes as the kernel's TCP does how many segments come of the size, and checks that they
// fit one message, and are not fewer than they need be.
func TestGSOMaxSize(t *testing.T) {
	for mtu := minMTUv6; mtu <= 9000; mtu++ {
		size := gsoMaxSize(mtu)
		if size > gsoLimit {
			t.Fatalf("MTU %d: %d", mtu, size)
		}
		for _, headers := range []int{40, 52, 60, 72} {
			mss := mtu - headers
			segments := (size - gsoReserve) / mss
			if n := segments * (mtu + sealedOverhead); n > sealedMessage || segments > 64 {
				t.Errorf("MTU %d, headers %d: %d segments, %d bytes sealed", mtu, headers, segments, n)
			}
			if fit := min(64, sealedMessage/(mtu+sealedOverhead)); segments < fit-1 {
				t.Errorf("MTU %d, headers %d: %d segments, %d would fit", mtu, headers, segments, fit)
			}
		}
	}
}

func TestPlanRoutes(t *testing.T) {
	parse := func(s string) (ps []netip.Prefix) {
		for f := range strings.FieldsSeq(s) {
			ps = append(ps, netip.MustParsePrefix(f))
		}
		return ps
	}
	for _, tt := range []struct{ name, addresses, routes, want string }{
		{name: "none"},
		{name: "plain", routes: "10.1.0.0/16 fd00::/8", want: "10.1.0.0/16 fd00::/8"},
		{name: "host bits", routes: "10.1.2.3/16", want: "10.1.0.0/16"},
		{name: "twice", routes: "10.1.0.0/16 10.1.2.3/16", want: "10.1.0.0/16"},
		{name: "IPv4 default", routes: "0.0.0.0/0", want: "0.0.0.0/1 128.0.0.0/1"},
		{name: "IPv6 default", routes: "::/0", want: "::/1 8000::/1"},
		{name: "default and half", routes: "128.0.0.0/1 0.0.0.0/0", want: "128.0.0.0/1 0.0.0.0/1"},
		{name: "on-link", addresses: "10.9.0.2/24", routes: "10.9.0.0/24 10.9.0.64/26 10.9.0.9/32"},
		{name: "wider than on-link", addresses: "10.9.0.2/24", routes: "10.9.0.0/16", want: "10.9.0.0/16"},
		{name: "beside on-link", addresses: "10.9.0.2/24", routes: "10.9.1.0/24", want: "10.9.1.0/24"},
		{name: "nothing on-link", addresses: "10.9.0.2/32", routes: "10.9.0.0/24", want: "10.9.0.0/24"},
		{name: "half on-link", addresses: "10.9.0.2/1", routes: "0.0.0.0/0", want: "128.0.0.0/1"},
		{name: "other family", addresses: "fd00:9::2/64", routes: "10.9.0.0/24", want: "10.9.0.0/24"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := planRoutes(Config{Addresses: parse(tt.addresses), Routes: parse(tt.routes)})
			if !slices.Equal(got, parse(tt.want)) {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestPlanBypass(t *testing.T) {
	plan := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("128.0.0.0/1"), netip.MustParsePrefix("2001:db8::/32")}
	var all []netip.Addr
	for _, s := range []string{"203.0.113.7", "::ffff:203.0.113.7", "10.0.0.1", "2001:db8::1", "2001:db9::1", "fe80::1%eth0"} {
		all = append(all, netip.MustParseAddr(s))
	}
	want := []netip.Addr{all[0], all[2], all[3]}
	if got := planBypass(all, plan); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := planBypass(all, nil); len(got) > 0 {
		t.Errorf("without routes: %v", got)
	}
}
