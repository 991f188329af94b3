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
//
// The size of super-packets is one of the interface too, and the segments of IPv6 are shorter than those
// of IPv4: so there are two for each.
const (
	trustedNIC4 tcpip.NICID = 1 + iota
	verifyingNIC4
	trustedNIC6
	verifyingNIC6
)

// trustedNIC returns the interface from which packets of the protocol are sent.
func trustedNIC(protocol tcpip.NetworkProtocolNumber) tcpip.NICID {
	if protocol == header.IPv4ProtocolNumber {
		return trustedNIC4
	}
	return trustedNIC6
}

// links are the interfaces for one of the two IP versions.
type links struct {
	trusted, verifying *link
}

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

// gsoMaxSize returns the super-packet size to announce so that a full one is maxSegments whole segments, or
// as many as there is room for. gVisor takes the size less the largest headers there can be, less
// one, for payload; and it keeps 40 bytes of each segment for TCP options.
func gsoMaxSize(mtu, maxSegments, ipHeader int) uint32 {
	const taken, options = header.TCPTotalHeaderMaximumSize + 1, 40
	mss := mtu - ipHeader - header.TCPMinimumSize - options
	segments := max(1, min(maxSegments, (maxSuperPacket-taken)/mss))
	return uint32(segments*mss + taken)
}

// addrOf converts an address of gVisor, which may be an IPv4 address in IPv6 form.
func addrOf(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr.Unmap()
}

// destination returns where a packet the stack sends is going.
func destination(pkt *stack.PacketBuffer) netip.Addr {
	// Network would do, but makes a new value for each packet.
	h := pkt.NetworkHeader().Slice()
	if pkt.NetworkProtocolNumber == header.IPv4ProtocolNumber {
		return netip.AddrFrom4([4]byte(h[16:20]))
	}
	return netip.AddrFrom16([16]byte(h[24:40]))
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
