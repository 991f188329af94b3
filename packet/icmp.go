package packet

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// Unreachable is why a packet could not go on.
type Unreachable uint8

const (
	NoRoute      Unreachable = iota // nobody on the overlay owns the destination
	HostDown                        // its owner does not answer
	NotPermitted                    // its owner is not to be reached from here
	unreachableN
)

// The codes of ICMPv4 type 3 (RFC 792, RFC 1812) and ICMPv6 type 1 (RFC 4443) for these reasons.
var unreachableCodes = [unreachableN][2]byte{
	NoRoute:      {0, 0},  // network unreachable; no route to destination
	HostDown:     {1, 3},  // host unreachable; address unreachable
	NotPermitted: {13, 1}, // communication administratively prohibited
}

// maxUnreachable bounds an error message: an IPv6 header, an ICMPv6 header, and
// of the packet in question no more than fits the least IPv6 MTU.
const maxUnreachable = MinMTUIPv6

// AppendUnreachable appends to buf the ICMP message that tells the sender of pkt, parsed as h, that
// its packet could not go on. The message comes from the address from, of the packet's family.
// Nothing is appended where RFC 1122 and RFC 4443 forbid an answer: to ICMP
// errors, to fragments but the first, and to or from addresses that are not one host's.
func AppendUnreachable(buf, pkt []byte, h *Header, why Unreachable, from netip.Addr) []byte {
	code := unreachableCodes[why]
	if from.Is4() {
		return appendError(buf, pkt, h, [8]byte{3, code[0]}, from)
	}
	return appendError(buf, pkt, h, [8]byte{1, code[1]}, from)
}

// AppendTooBig appends to buf the ICMP message that tells the sender of a packet, which begins with head and is parsed as
// h, that packets of more than mtu bytes are too big from here on (RFC 1191, RFC 4443). Nothing is
// appended where AppendUnreachable appends nothing, nor to a packet that may be fragmented. No MTU is named that is less than the least
// of the IP version.
func AppendTooBig(buf, head []byte, h *Header, mtu int, from netip.Addr) []byte {
	var msg [8]byte
	if from.Is4() {
		if h.Src.Is4() && head[6]&dontFragment == 0 {
			return buf
		}
		msg = [8]byte{3, 4}
		binary.BigEndian.PutUint16(msg[6:], uint16(min(max(mtu, MinMTUIPv4), MaxLen)))
	} else {
		msg = [8]byte{2, 0}
		binary.BigEndian.PutUint32(msg[4:], uint32(max(mtu, MinMTUIPv6)))
	}
	return appendError(buf, head, h, msg, from)
}

// The least MTUs: what every host takes of IPv4 (RFC 791), what every link carries of IPv6 (RFC 8200, section 5).
const (
	MinMTUIPv4 = 576
	MinMTUIPv6 = 1280
)

// dontFragment is the bit in the seventh byte of an IPv4 header.
const dontFragment = 0x40

// appendError appends an ICMP error about the packet that begins with pkt. msg is its first eight bytes, all but the checksum.
func appendError(buf, pkt []byte, h *Header, msg [8]byte, from netip.Addr) []byte {
	if from.Is4() != h.Src.Is4() || !oneHost(h.Src) || !oneHost(h.Dst) || isICMPError(pkt, h) {
		return buf
	}
	if h.Fragment && binary.BigEndian.Uint16(pkt[6:])&0x1fff != 0 {
		return buf
	}
	at := len(buf)
	if from.Is4() {
		quoted := min(len(pkt), 576-IPv4HeaderLen-8) // RFC 1812, section 4.3.2.3
		total := IPv4HeaderLen + 8 + quoted
		buf = append(buf, make([]byte, IPv4HeaderLen)...)
		buf = append(buf, msg[:]...)
		buf = append(buf, pkt[:quoted]...)
		ip := buf[at:]
		ip[0], ip[1] = 0x45, 0xc0 // internetwork control
		binary.BigEndian.PutUint16(ip[2:], uint16(total))
		ip[8], ip[9] = 64, ProtoICMP
		src, dst := from.As4(), h.Src.As4()
		copy(ip[12:], src[:])
		copy(ip[16:], dst[:])
		sumIPv4(ip[:IPv4HeaderLen])
		icmp := ip[IPv4HeaderLen:]
		binary.BigEndian.PutUint16(icmp[2:], ^checksum.Checksum(icmp, 0))
		return buf
	}
	quoted := min(len(pkt), maxUnreachable-IPv6HeaderLen-8)
	buf = append(buf, make([]byte, IPv6HeaderLen)...)
	buf = append(buf, msg[:]...)
	buf = append(buf, pkt[:quoted]...)
	ip := buf[at:]
	ip[0] = 0x60
	binary.BigEndian.PutUint16(ip[4:], uint16(8+quoted))
	ip[6], ip[7] = ProtoICMPv6, 64
	src, dst := from.As16(), h.Src.As16()
	copy(ip[8:], src[:])
	copy(ip[24:], dst[:])
	icmp := ip[IPv6HeaderLen:]
	sum := checksum.Combine(pseudoSum(ip, ProtoICMPv6), uint16(len(icmp)))
	binary.BigEndian.PutUint16(icmp[2:], ^checksum.Checksum(icmp, sum))
	return buf
}

func oneHost(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// isICMPError reports whether pkt is an ICMP message that is not an informational one.
func isICMPError(pkt []byte, h *Header) bool {
	if h.Proto != ProtoICMP && h.Proto != ProtoICMPv6 {
		return false
	}
	if len(pkt) <= h.Transport {
		return true
	}
	t := pkt[h.Transport]
	if h.Proto == ProtoICMPv6 {
		return t < 128
	}
	return t == 3 || t == 4 || t == 5 || t == 11 || t == 12
}
