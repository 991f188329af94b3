//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host is a machine: a network namespace with an interface for each switch it is attached to.
type Host struct {
	n       *Network
	name    string
	ns      *namespace
	ifaces  []*iface
	cabled  []netip.Prefix // its addresses on cables
	created int            // interfaces ever made, for their names
	routes  []route        // what Gateway, Route and SetGateway asked for
	block   blocker
}

// iface is a host's attachment to a switch.
type iface struct {
	sw    *Switch
	name  string // in the host
	port  string // the other end, in the fabric
	addrs []netip.Prefix
}

type route struct {
	to  netip.Prefix // zero bits: a default route
	via netip.Addr
}

// Option describes a host: [Link], [Gateway], [Route], and for a NAT also [Symmetric] and
// [RoutedIPv6].
type Option interface{ apply(*spec) error }

type spec struct {
	links      []Link
	routes     []route
	forwarding bool
	nat        natSpec
}

// Link is an attachment of a host to a switch, made by [On].
type Link struct {
	sw    *Switch
	addrs []string
}

// On attaches a host to a switch, with addresses written like "192.0.2.1/24". The first On of a
// host makes its interface eth0, the second eth1, and so on.
func On(sw *Switch, addrs ...string) Link { return Link{sw, addrs} }

func (l Link) apply(s *spec) error {
	s.links = append(s.links, l)
	return nil
}

type optionFunc func(*spec) error

func (f optionFunc) apply(s *spec) error { return f(s) }

// Gateway sets the default routes, at most one of each family.
func Gateway(addrs ...string) Option {
	return optionFunc(func(s *spec) error {
		routes, err := defaultRoutes(addrs)
		s.routes = append(s.routes, routes...)
		return err
	})
}

// Route adds a route to a prefix through a neighbour.
func Route(prefix, via string) Option {
	return optionFunc(func(s *spec) error {
		p, err := netip.ParsePrefix(prefix)
		if err != nil {
			return err
		}
		a, err := netip.ParseAddr(via)
		s.routes = append(s.routes, route{p.Masked(), a})
		return err
	})
}

func defaultRoutes(gateways []string) ([]route, error) {
	var routes []route
	for _, g := range gateways {
		a, err := netip.ParseAddr(g)
		if err != nil {
			return nil, fmt.Errorf("gateway: %w", err)
		}
		any := netip.IPv4Unspecified()
		if a.Is6() {
			any = netip.IPv6Unspecified()
		}
		routes = append(routes, route{netip.PrefixFrom(any, 0), a})
	}
	return routes, nil
}

// Host makes a host. Names say what is meant in errors and are unique within a network.
func (n *Network) Host(name string, opts ...Option) *Host {
	n.t.Helper()
	h, _ := n.host(name, false, opts)
	return h
}

// Router makes a host that forwards packets between its links, without NAT or firewall.
func (n *Network) Router(name string, opts ...Option) *Host {
	n.t.Helper()
	h, _ := n.host(name, true, opts)
	return h
}

func (n *Network) host(name string, forwarding bool, opts []Option) (*Host, spec) {
	n.t.Helper()
	for _, h := range n.hosts {
		if h.name == name {
			n.t.Fatalf("lab: there is a host %q already", name)
		}
	}
	s := spec{forwarding: forwarding}
	for _, o := range opts {
		n.wrap(o.apply(&s), "host %s", name)
	}
	ns, err := newNamespace()
	n.wrap(err, "host %s", name)
	h := &Host{n: n, name: name, ns: ns, routes: s.routes}
	n.hosts = append(n.hosts, h)
	h.configure(s.forwarding)
	for _, l := range s.links {
		h.attach(l)
	}
	h.restoreRoutes()
	return h, s
}

// configure sets what a fresh namespace inherits from the machine to what the lab promises,
// before there is an interface to inherit it in turn.
func (h *Host) configure(forwarding bool) {
	h.n.t.Helper()
	forward := "0"
	if forwarding {
		forward = "1"
	}
	for _, s := range [][2]string{
		{"net/ipv4/ip_forward", forward},
		{"net/ipv6/conf/all/forwarding", forward},
		{"net/ipv6/conf/default/forwarding", forward},
		{"net/ipv4/conf/all/rp_filter", "0"},
		{"net/ipv4/conf/default/rp_filter", "0"},
		// No address waits a second for duplicate detection, and nothing is configured by strangers.
		{"net/ipv6/conf/all/disable_ipv6", "0"},
		{"net/ipv6/conf/default/disable_ipv6", "0"},
		{"net/ipv6/conf/default/accept_dad", "0"},
		{"net/ipv6/conf/default/dad_transmits", "0"},
		{"net/ipv6/conf/default/accept_ra", "0"},
		{"net/ipv6/conf/default/autoconf", "0"},
		// Tests of path MTU and unreachable ports must not depend on a budget of errors a second.
		{"net/ipv4/icmp_ratelimit", "0"},
		{"net/ipv6/icmp/ratelimit", "0"},
	} {
		h.n.wrap(h.ns.sysctl(s[0], s[1]), "host %s", h.name)
	}
	lo, err := h.ns.LinkByName("lo")
	h.n.wrap(err, "host %s: finding lo", h.name)
	h.n.wrap(h.ns.LinkSetUp(lo), "host %s: starting lo", h.name)
}

// Name returns the name the host was made with.
func (h *Host) Name() string { return h.name }

// Do runs f on the calling goroutine while its thread is in the host's namespace: sockets f makes
// stay in it. A goroutine that f starts is not in it.
func (h *Host) Do(f func()) {
	h.n.t.Helper()
	h.n.must(h.ns.do(f))
}

// Sysctl sets a kernel parameter under /proc/sys/net of the host, for example "net/ipv4/tcp_sack"
// to "0".
func (h *Host) Sysctl(key, value string) {
	h.n.t.Helper()
	h.n.wrap(h.ns.sysctl(key, value), "host %s", h.name)
}

// Attach plugs the host into another switch, as [On] does. Its default routes are kept, or
// come back, where their gateway can now be reached.
func (h *Host) Attach(sw *Switch, addrs ...string) {
	h.n.t.Helper()
	h.attach(On(sw, addrs...))
	h.restoreRoutes()
}

// Detach unplugs the host from a switch: interface, addresses and routes are gone.
func (h *Host) Detach(sw *Switch) {
	h.n.t.Helper()
	i := h.on(sw)
	link, err := h.ns.LinkByName(i.name)
	if err == nil {
		err = h.ns.LinkDel(link)
	}
	h.n.wrap(err, "host %s: detaching from %s", h.name, sw.name)
	h.ifaces = slices.DeleteFunc(h.ifaces, func(x *iface) bool { return x == i })
}

// Interface returns the name of the host's interface on a switch.
func (h *Host) Interface(sw *Switch) string {
	h.n.t.Helper()
	return h.on(sw).name
}

func (h *Host) on(sw *Switch) *iface {
	h.n.t.Helper()
	for _, i := range h.ifaces {
		if i.sw == sw {
			return i
		}
	}
	h.n.t.Fatalf("lab: host %s is not attached to switch %s", h.name, sw.name)
	return nil
}

func (h *Host) attach(l Link) {
	h.n.t.Helper()
	if l.sw.n != h.n {
		h.n.t.Fatalf("lab: host %s: switch %s belongs to another network", h.name, l.sw.name)
	}
	i := &iface{sw: l.sw, name: h.nextInterface(), port: h.n.port()}
	for _, s := range l.addrs {
		p, err := netip.ParsePrefix(s)
		h.n.wrap(err, "host %s on %s", h.name, l.sw.name)
		i.addrs = append(i.addrs, p)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = i.port
	attrs.MasterIndex = l.sw.bridge.Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: i.name, PeerNamespace: netlink.NsFd(h.ns.handle)}
	h.n.wrap(h.n.fabric.LinkAdd(veth), "host %s: attaching to %s", h.name, l.sw.name)
	h.ifaces = append(h.ifaces, i)
	h.n.wrap(h.n.fabric.LinkSetUp(veth), "host %s: starting its port on %s", h.name, l.sw.name)
	h.start(i)
}

// start brings the host's end of i up, waits until frames can pass, and gives it its addresses.
func (h *Host) start(i *iface) {
	h.n.t.Helper()
	link, err := h.ns.LinkByName(i.name)
	if err == nil {
		err = h.ns.LinkSetUp(link)
	}
	h.n.wrap(err, "host %s: starting %s", h.name, i.name)
	// The kernel notices the carrier in a work queue; until it has, frames are dropped in silence.
	h.n.wrap(waitOperational(h.ns, i.name), "host %s", h.name)
	h.n.wrap(waitOperational(h.n.fabric, i.port), "host %s: its port on %s", h.name, i.sw.name)
	for _, a := range i.addrs {
		h.n.wrap(h.ns.AddrReplace(link, netlinkAddr(a)), "host %s: adding %s to %s", h.name, a, i.name)
	}
}

// waitOperational returns when the kernel counts the interface as running.
func waitOperational(ns *namespace, name string) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		link, err := ns.LinkByName(name)
		if err != nil {
			return fmt.Errorf("waiting for %s: %w", name, err)
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is %s ten seconds after its start", name, link.Attrs().OperState)
		}
	}
}

func netlinkAddr(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// SetGateway replaces the default routes. With no gateway there is none.
func (h *Host) SetGateway(gateways ...string) {
	h.n.t.Helper()
	defaults, err := defaultRoutes(gateways)
	h.n.wrap(err, "host %s", h.name)
	var rest []route
	for _, r := range h.routes {
		if r.to.Bits() != 0 {
			rest = append(rest, r)
			continue
		}
		err := h.ns.RouteDel(&netlink.Route{Dst: ipNet(r.to), Gw: r.via.AsSlice()})
		if err != nil && !errors.Is(err, unix.ESRCH) { // gone already, with its interface
			h.n.wrap(err, "host %s: removing the default route via %s", h.name, r.via)
		}
	}
	h.routes = append(rest, defaults...)
	h.restoreRoutes()
}

// restoreRoutes makes the routes that were asked for and whose gateway is a neighbour at present.
func (h *Host) restoreRoutes() {
	h.n.t.Helper()
	for _, r := range h.routes {
		if h.neighbour(r.via) {
			err := h.ns.RouteReplace(&netlink.Route{Dst: ipNet(r.to), Gw: r.via.AsSlice()})
			h.n.wrap(err, "host %s: route to %s via %s", h.name, r.to, r.via)
		}
	}
}

func (h *Host) neighbour(a netip.Addr) bool {
	near := func(p netip.Prefix) bool { return p.Contains(a) }
	return slices.ContainsFunc(h.cabled, near) ||
		slices.ContainsFunc(h.ifaces, func(i *iface) bool { return slices.ContainsFunc(i.addrs, near) })
}

// AddAddr adds an address to the interface on sw.
func (h *Host) AddAddr(sw *Switch, addr string) {
	h.n.t.Helper()
	i := h.on(sw)
	h.addAddr(i, addr)
	h.restoreRoutes()
}

// ReplaceAddr takes the address old from the interface on sw and gives it the address new: the host
// has moved, and knows. Connections and sockets bound to old are left to find out.
// Routes that went with old come back if their gateway is in a network of new.
func (h *Host) ReplaceAddr(sw *Switch, old, new string) {
	h.n.t.Helper()
	i := h.on(sw)
	p, err := netip.ParsePrefix(old)
	h.n.wrap(err, "host %s", h.name)
	at := slices.Index(i.addrs, p)
	if at < 0 {
		h.n.t.Fatalf("lab: host %s has no address %s on %s", h.name, p, sw.name)
	}
	link, err := h.ns.LinkByName(i.name)
	if err == nil {
		err = h.ns.AddrDel(link, netlinkAddr(p))
	}
	h.n.wrap(err, "host %s: removing %s", h.name, p)
	i.addrs = slices.Delete(i.addrs, at, at+1)
	h.addAddr(i, new)
	h.restoreRoutes()
}

func (h *Host) addAddr(i *iface, addr string) {
	h.n.t.Helper()
	p, err := netip.ParsePrefix(addr)
	h.n.wrap(err, "host %s", h.name)
	link, err := h.ns.LinkByName(i.name)
	if err == nil {
		err = h.ns.AddrReplace(link, netlinkAddr(p))
	}
	h.n.wrap(err, "host %s: adding %s to %s", h.name, p, i.name)
	i.addrs = append(i.addrs, p)
}

// Down stops the interface on sw. As on any machine its routes and IPv6 addresses go.
func (h *Host) Down(sw *Switch) {
	h.n.t.Helper()
	i := h.on(sw)
	link, err := h.ns.LinkByName(i.name)
	if err == nil {
		err = h.ns.LinkSetDown(link)
	}
	h.n.wrap(err, "host %s: stopping %s", h.name, i.name)
}

// Up starts the interface on sw again, with the addresses and routes it had.
func (h *Host) Up(sw *Switch) {
	h.n.t.Helper()
	h.start(h.on(sw))
	h.restoreRoutes()
}

// SetMTU sets the MTU of the interface on sw, in bytes of IP packet. The port of the switch takes it
// too, so longer frames are lost in both directions without a word, as on a real segment where
// one machine is configured otherwise than its neighbours.
func (h *Host) SetMTU(sw *Switch, mtu int) {
	h.n.t.Helper()
	i := h.on(sw)
	link, err := h.ns.LinkByName(i.name)
	if err == nil {
		err = h.ns.LinkSetMTU(link, mtu)
	}
	h.n.wrap(err, "host %s: MTU %d on %s", h.name, mtu, i.name)
	port, err := h.n.fabric.LinkByName(i.port)
	if err == nil {
		err = h.n.fabric.LinkSetMTU(port, mtu)
	}
	h.n.wrap(err, "host %s: MTU %d on its port of %s", h.name, mtu, sw.name)
}
