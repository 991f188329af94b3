package underlay

import (
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sockaddrs turns addresses into the system's form and back, for one socket.
type sockaddrs struct {
	v6    bool // an AF_INET6 socket
	zones zones
}

// put writes to into sa, which has room for either family, and returns the length used.
func (s *sockaddrs) put(sa *unix.RawSockaddrInet6, to netip.AddrPort) (uint32, error) {
	addr := to.Addr()
	if !s.v6 {
		if addr = addr.Unmap(); !addr.Is4() {
			return 0, syscall.EAFNOSUPPORT
		}
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		*sa4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swapPort(to.Port()), Addr: addr.As4()}
		return unix.SizeofSockaddrInet4, nil
	}
	*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: swapPort(to.Port()), Addr: addr.As16()}
	if zone := addr.Zone(); zone != "" {
		scope, err := s.zones.index(zone, time.Now())
		if err != nil {
			return 0, err
		}
		sa.Scope_id = scope
	}
	return unix.SizeofSockaddrInet6, nil
}

// get is the inverse of put, for what the system filled in.
func (s *sockaddrs) get(sa *unix.RawSockaddrInet6) netip.AddrPort {
	if sa.Family == unix.AF_INET {
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), swapPort(sa4.Port))
	}
	addr := netip.AddrFrom16(sa.Addr).Unmap()
	if sa.Scope_id != 0 && addr.Is6() {
		addr = addr.WithZone(s.zones.name(sa.Scope_id, time.Now()))
	}
	return netip.AddrPortFrom(addr, swapPort(sa.Port))
}

// swapPort turns a port between host and network order.
func swapPort(p uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&p))
	return uint16(b[0])<<8 | uint16(b[1])
}

// zones remembers which interface has which index, as asking takes several system calls. Interfaces
// come and go, so what it knows is good for a minute only.
type zones struct {
	mu      sync.Mutex
	asked   time.Time
	byName  map[string]uint32
	byIndex map[uint32]string
}

const zonesLast = time.Minute

// index returns the scope of the interface called name, or that name is the number of.
func (z *zones) index(name string, now time.Time) (uint32, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.forget(now)
	if i, ok := z.byName[name]; ok {
		return i, nil
	}
	if ifi, err := net.InterfaceByName(name); err == nil {
		return z.know(name, uint32(ifi.Index)), nil
	}
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(n), nil
	}
	return 0, syscall.ENODEV
}

// name returns the name of the interface of scope index, or its number if it has none.
func (z *zones) name(index uint32, now time.Time) string {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.forget(now)
	if name, ok := z.byIndex[index]; ok {
		return name
	}
	if ifi, err := net.InterfaceByIndex(int(index)); err == nil {
		z.know(ifi.Name, index)
		return ifi.Name
	}
	return strconv.FormatUint(uint64(index), 10)
}

func (z *zones) know(name string, index uint32) uint32 {
	z.byName[name] = index
	z.byIndex[index] = name
	return index
}

func (z *zones) forget(now time.Time) {
	if z.byName == nil || now.Sub(z.asked) > zonesLast {
		z.byName = make(map[string]uint32)
		z.byIndex = make(map[uint32]string)
		z.asked = now
	}
}
