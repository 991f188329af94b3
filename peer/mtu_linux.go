package peer

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/adit-overlay/adit/config"
)

// autoMTU is what fits the widest way out to one of the endpoints, as far as they are addresses. With a name among them, or none
// at all, it is what fits the interface of the address listened at, or the widest of all.
//
// The widest, because a path that carries less is found out and adapted to; more than the device gives would
// never be tried.
func autoMTU(listen string, endpoints []string) (mtu int, because string) {
	widest, why := 0, ""
	consider := func(n int, what string) {
		if n > widest {
			widest, why = n, fmt.Sprintf("%s carries %d bytes", what, n)
		}
	}
	named := len(endpoints) == 0
	for _, e := range endpoints {
		addr, err := netip.ParseAddrPort(e)
		if err != nil {
			named = true
			continue
		}
		consider(routeMTU(addr), "the way to "+addr.Addr().String())
	}
	if named {
		consider(interfaceMTU(listen))
	}
	if widest == 0 {
		return config.DefaultMTU, "nothing is known of the way out"
	}
	return mtuWithin(widest), why
}

// routeMTU is the MTU of the way to an address, 0 if there is none. A UDP socket is connected without a packet.
func routeMTU(to netip.AddrPort) (mtu int) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return 0
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	level, option := unix.IPPROTO_IPV6, unix.IPV6_MTU
	if to.Addr().Unmap().Is4() {
		level, option = unix.IPPROTO_IP, unix.IP_MTU
	}
	raw.Control(func(fd uintptr) {
		if n, err := unix.GetsockoptInt(int(fd), level, option); err == nil {
			mtu = n
		}
	})
	return mtu
}

// interfaceMTU is the MTU, and the name, of the interface that has the address of listen, or of the widest that lead out.
func interfaceMTU(listen string) (mtu int, name string) {
	var at netip.Addr
	if addr, err := netip.ParseAddrPort(listen); err == nil && !addr.Addr().IsUnspecified() {
		at = addr.Addr().Unmap().WithZone("")
	}
	all, err := net.Interfaces()
	if err != nil {
		return 0, ""
	}
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || i.MTU <= mtu {
			continue
		}
		// Loopback leads nowhere, and a point-to-point interface is often a tunnel, this overlay's perhaps.
		if at.IsValid() && !has(i, at) || !at.IsValid() && i.Flags&(net.FlagLoopback|net.FlagPointToPoint) != 0 {
			continue
		}
		mtu, name = i.MTU, "interface "+i.Name
	}
	return mtu, name
}

// has reports whether addr is one of the interface's addresses, or lies in the network of a loopback interface.
func has(i net.Interface, addr netip.Addr) bool {
	addrs, err := i.Addrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		own, _ := netip.AddrFromSlice(n.IP)
		if own.Unmap() == addr || i.Flags&net.FlagLoopback != 0 && n.Contains(addr.AsSlice()) {
			return true
		}
	}
	return false
}
