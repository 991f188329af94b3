//go:build linux

package contestants

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/adit-overlay/adit/integration/lab"
)

// raise gives an interface of h its addresses and starts it.
func (s *Site) raise(h *lab.Host, name string, addrs ...netip.Prefix) {
	var err error
	h.Do(func() {
		var link netlink.Link
		if link, err = netlink.LinkByName(name); err != nil {
			return
		}
		if err = netlink.LinkSetUp(link); err != nil {
			return
		}
		for _, p := range addrs {
			a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
			if p.Addr().Is6() {
				a.Flags = unix.IFA_F_NODAD
			}
			if err = netlink.AddrReplace(link, a); err != nil {
				return
			}
		}
	})
	if err != nil {
		s.T.Fatalf("%s: interface %s: %v", s.Name, name, err)
	}
}
