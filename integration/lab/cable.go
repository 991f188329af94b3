//go:build linux

package lab

import (
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink"
)

// End is one end of a cable, made by [Plug].
type End struct {
	h     *Host
	addrs []string
}

// Plug is the end of a cable in h, with addresses written like "192.0.2.1/24".
func Plug(h *Host, addrs ...string) End { return End{h, addrs} }

// Cable joins two hosts directly, without a switch between them: nothing costs less on the way. It is
// an interface of each host, numbered after those it has, and stays as it is: no host moves along it.
func (n *Network) Cable(a, b End) {
	n.t.Helper()
	nameA, nameB := a.h.nextInterface(), b.h.nextInterface()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = nameA
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: nameB, PeerNamespace: netlink.NsFd(b.h.ns.handle)}
	n.wrap(a.h.ns.LinkAdd(veth), "cable from %s to %s", a.h.name, b.h.name)
	a.start(nameA)
	b.start(nameB)
	// Each has a carrier only since the other was started.
	n.wrap(waitOperational(a.h.ns, nameA), "host %s", a.h.name)
	n.wrap(waitOperational(b.h.ns, nameB), "host %s", b.h.name)
	a.h.restoreRoutes()
	b.h.restoreRoutes()
}

func (e End) start(name string) {
	n := e.h.n
	n.t.Helper()
	link, err := e.h.ns.LinkByName(name)
	if err == nil {
		err = e.h.ns.LinkSetUp(link)
	}
	n.wrap(err, "host %s: starting %s", e.h.name, name)
	for _, s := range e.addrs {
		p, err := netip.ParsePrefix(s)
		n.wrap(err, "host %s: %s", e.h.name, name)
		n.wrap(e.h.ns.AddrReplace(link, netlinkAddr(p)), "host %s: adding %s to %s", e.h.name, p, name)
		e.h.cabled = append(e.h.cabled, p)
	}
}

// nextInterface returns a new name for an interface of the host.
func (h *Host) nextInterface() string {
	h.created++
	return "eth" + strconv.Itoa(h.created-1)
}
