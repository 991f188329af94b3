package netstack

import (
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// An ICMP error about a TCP connection that is being made ends the dial with the error Linux gives:
//
//	                                   ICMPv4           ICMPv6      error
//	no route                           0, 6, 9, 11      0           ENETUNREACH
//	host down, or may not be reached   1, 10, 12 to 15  1 to 3, 5+  EHOSTUNREACH (for 1, 5 and 6 Linux has EACCES)
//	port unreachable                   3                4           ECONNREFUSED
//
// A connection once made takes them for passing troubles (RFC 5461, section 2). Of a connected UDP socket Read
// and Write return ECONNREFUSED; that there is no route, or that the host is down, Linux tells only a socket that
// asked for it by IP_RECVERR (ip(7)), which one of package net does not, and so nor does this one.
//
// gVisor does all this but for the second row of ICMPv6, whose messages it ignores. And there is one thing Linux
// does that it does not: a connected UDP socket learns of a code that says "prohibited". No peer sends these.

// unreachable returns what is quoted of the packet that caused d, if d is an ICMPv6 Destination Unreachable with
// a code the stack ignores, and otherwise nil. One whose checksum is wrong is left for the stack to count.
func (d *datagram) unreachable() []byte {
	m := d.payload()
	if !d.plain || d.protocol != uint8(header.ICMPv6ProtocolNumber) || len(m) < header.ICMPv6DstUnreachableMinimumSize {
		return nil
	}
	icmp := header.ICMPv6(m)
	if icmp.Type() != header.ICMPv6DstUnreachable ||
		icmp.Code() == header.ICMPv6NetworkUnreachable || icmp.Code() == header.ICMPv6PortUnreachable {
		return nil
	}
	sum := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, addressOf(d.src), addressOf(d.dst), uint16(len(m)))
	if checksum.Checksum(m, sum) != 0xffff {
		return nil
	}
	return m[header.ICMPv6DstUnreachableMinimumSize:]
}

// unreachable tells the endpoint that sent a packet, of which offending is the beginning, that its
// destination cannot be reached. That is what the stack does when a neighbour does not answer.
func (s *ipStack) unreachable(offending []byte) {
	ep, terr := s.g.GetNetworkEndpoint(trustedNIC6, header.IPv6ProtocolNumber)
	if terr != nil {
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(offending)})
	defer pkt.DecRef()
	if ep, ok := ep.(stack.LinkResolvableNetworkEndpoint); ok {
		ep.HandleLinkResolutionFailure(pkt)
	}
}

// leastPathMTU4 is the least MTU of a path that is believed, as with Linux. No link has less for IPv4.
const leastPathMTU4 = 552

// understatesMTU reports whether d says that a packet was too big for a link whose MTU no link has. The stack
// would send what it sends to there in segments of one byte from then on, and in super-packets of
// tens of thousands of them. RFC 8201, section 4, says to discard such a message.
func (d *datagram) understatesMTU() bool {
	m := d.payload()
	if !d.plain || len(m) < header.ICMPv4MinimumSize {
		return false
	}
	if d.dst.Is4() {
		icmp := header.ICMPv4(m)
		return d.protocol == uint8(header.ICMPv4ProtocolNumber) && icmp.Type() == header.ICMPv4DstUnreachable &&
			icmp.Code() == header.ICMPv4FragmentationNeeded && icmp.MTU() < leastPathMTU4
	}
	icmp := header.ICMPv6(m)
	return d.protocol == uint8(header.ICMPv6ProtocolNumber) && icmp.Type() == header.ICMPv6PacketTooBig &&
		icmp.MTU() < header.IPv6MinimumMTU
}
