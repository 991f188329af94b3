package netstack

import (
	"net/netip"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// gVisor decides for a whole interface whether checksums of received packets are verified.
// So the device has two interfaces with the same addresses: packets whose checksum is partial, or was
// verified before, enter by one, all others and all fragments by the other. Both send into
// the same queue; the route table names the trusted one first.
const (
	trustedNIC   tcpip.NICID = 1
	verifyingNIC tcpip.NICID = 2
)

// link is a link endpoint of gVisor that hands outgoing packets to a function.
type link struct {
	mtu        uint32
	gsoMaxSize uint32
	rxOffload  bool
	send       func(*stack.PacketBuffer) bool
	dispatcher atomic.Pointer[stack.NetworkDispatcher]
}

var _ stack.LinkEndpoint = (*link)(nil)
var _ stack.GSOEndpoint = (*link)(nil)

// inject hands a received packet to the stack.
func (l *link) inject(pkt *stack.PacketBuffer) {
	if d := l.dispatcher.Load(); d != nil {
		(*d).DeliverNetworkPacket(pkt.NetworkProtocolNumber, pkt)
	}
}

// WritePackets never fails: TCP would take an error for one of the route, but a packet that
// did not fit is no more than a lost one.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for _, pkt := range pkts.AsSlice() {
		l.send(pkt)
	}
	return pkts.Len(), nil
}

func (l *link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.dispatcher.Store(nil)
		return
	}
	l.dispatcher.Store(&d)
}

func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	if l.rxOffload {
		return stack.CapabilityRXChecksumOffload
	}
	return stack.CapabilityNone
}

func (l *link) IsAttached() bool                        { return l.dispatcher.Load() != nil }
func (l *link) MTU() uint32                             { return l.mtu }
func (l *link) SetMTU(uint32)                           {}
func (l *link) MaxHeaderLength() uint16                 { return 0 }
func (l *link) LinkAddress() tcpip.LinkAddress          { return "" }
func (l *link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (l *link) AddHeader(*stack.PacketBuffer)           {}
func (l *link) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (l *link) Wait()                                   {}
func (l *link) Close()                                  {}
func (l *link) SetOnCloseAction(func())                 {}
func (l *link) GSOMaxSize() uint32                      { return l.gsoMaxSize }
func (l *link) SupportedGSO() stack.SupportedGSO        { return stack.HostGSOSupported }

// gsoMaxSize returns the super-packet size to announce so that a full one is a whole number of
// segments. gVisor takes the size less the largest headers there can be, less one, for payload;
// and it keeps 40 bytes of each segment for TCP options. With both address
// families the segments of IPv4 are kept whole and the last of IPv6 is a short one. There are never
// more than maxSegments.
func gsoMaxSize(mtu, maxSegments int, v4, v6 bool) uint32 {
	const taken, options = header.TCPTotalHeaderMaximumSize + 1, 40
	mss4, mss6 := mtu-20-20-options, mtu-40-20-options
	mss, segments := mss4, maxSegments
	switch {
	case v4 && v6:
		segments = max(1, maxSegments*mss6/mss4)
	case v6:
		mss = mss6
	}
	segments = max(1, min(segments, (maxSuperPacket-taken)/mss))
	return uint32(segments*mss + taken)
}

// addrOf converts an address of gVisor, which may be an IPv4 address in IPv6 form.
func addrOf(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr.Unmap()
}

// addressOf converts an address for gVisor; the invalid one becomes the empty one.
func addressOf(a netip.Addr) tcpip.Address {
	switch {
	case a.Is4():
		return tcpip.AddrFrom4(a.As4())
	case a.Is6():
		return tcpip.AddrFrom16(a.As16())
	}
	return tcpip.Address{}
}

func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}
