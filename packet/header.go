// Package packet knows IP packets: their headers, their checksums, and how super-packets are
// cut into segments and put together again.
//
// Nothing here allocates, and nothing here trusts its input: a packet is looked at through
// [Parse], which refuses what is shorter than it claims to be.
package packet

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// Transport protocol numbers, as in the IPv4 protocol and the IPv6 next header field.
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
)

// Header lengths without options or extension headers.
const (
	IPv4HeaderLen = 20
	IPv6HeaderLen = 40
	TCPHeaderLen  = 20
	UDPHeaderLen  = 8
)

// Offsets of the checksum within the transport header.
const (
	tcpChecksum = 16
	udpChecksum = 6
)

// Errors of Parse, one a reason, so that drops can be counted by reason.
var (
	ErrShort   = errors.New("packet: shorter than its header")
	ErrVersion = errors.New("packet: neither IPv4 nor IPv6")
	ErrLength  = errors.New("packet: length field does not fit the packet")
	ErrAddress = errors.New("packet: address that may not be on the wire")
)

// A Header is what Parse found. Offsets count from the start of the packet.
type Header struct {
	Src, Dst netip.Addr
	Proto    uint8 // IPv4 protocol, or IPv6 next header: possibly an extension header's
	// Transport is where the IP header ends. With Fragment set, or an extension header's number in
	// Proto, no transport header can be counted on there.
	Transport int
	Fragment  bool // a fragment of an IPv4 packet, the first included
}

// Parse reads the IP header of b, which must hold one whole packet and nothing behind it.
func Parse(b []byte) (Header, error) { return parse(b, len(b)) }

// ParseHead reads the IP header of a packet of size bytes of which b holds the beginning.
func ParseHead(b []byte, size int) (Header, error) { return parse(b, size) }

func parse(b []byte, size int) (h Header, err error) {
	if len(b) < 1 {
		return h, ErrShort
	}
	switch b[0] >> 4 {
	case 4:
		if len(b) < IPv4HeaderLen {
			return h, ErrShort
		}
		h.Transport = int(b[0]&15) * 4
		if h.Transport < IPv4HeaderLen || h.Transport > len(b) {
			return h, ErrLength
		}
		if int(binary.BigEndian.Uint16(b[2:])) != size {
			return h, ErrLength
		}
		h.Proto = b[9]
		h.Fragment = b[6]&0x3f != 0 || b[7] != 0
		h.Src = netip.AddrFrom4([4]byte(b[12:16]))
		h.Dst = netip.AddrFrom4([4]byte(b[16:20]))
	case 6:
		if len(b) < IPv6HeaderLen {
			return h, ErrShort
		}
		if int(binary.BigEndian.Uint16(b[4:]))+IPv6HeaderLen != size {
			return h, ErrLength
		}
		h.Proto = b[6]
		h.Transport = IPv6HeaderLen
		h.Src = netip.AddrFrom16([16]byte(b[8:24]))
		h.Dst = netip.AddrFrom16([16]byte(b[24:40]))
		// An IPv4-mapped address in an IPv6 packet would pass for an IPv4 one once unmapped.
		if h.Src.Is4In6() || h.Dst.Is4In6() {
			return h, ErrAddress
		}
	default:
		return h, ErrVersion
	}
	return h, nil
}

// ChecksumOffset returns where in the packet the TCP or UDP checksum lies, if h has a
// TCP or UDP header right behind the IP header and size bytes hold it whole.
func (h *Header) ChecksumOffset(size int) (int, bool) {
	if h.Fragment {
		return 0, false
	}
	switch {
	case h.Proto == ProtoTCP && size >= h.Transport+TCPHeaderLen:
		return h.Transport + tcpChecksum, true
	case h.Proto == ProtoUDP && size >= h.Transport+UDPHeaderLen:
		return h.Transport + udpChecksum, true
	}
	return 0, false
}

// pseudoSum is the sum over the pseudo-header of the packet b but for its length.
func pseudoSum(b []byte, proto uint8) uint16 {
	if b[0]>>4 == 4 {
		return checksum.Checksum(b[12:20], uint16(proto))
	}
	return checksum.Checksum(b[8:40], uint16(proto))
}

// sumIPv4 puts the header checksum of the IPv4 header ip in its place.
func sumIPv4(ip []byte) {
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^checksum.Checksum(ip, 0))
}

// Verify reports whether the checksum of the TCP or UDP packet b, parsed as h, is right. For other
// protocols, and for fragments, there is nothing to verify here, and it reports false.
func Verify(b []byte, h *Header) bool {
	at, ok := h.ChecksumOffset(len(b))
	if !ok {
		return false
	}
	if h.Proto == ProtoUDP && b[0]>>4 == 4 && b[at] == 0 && b[at+1] == 0 {
		return true // the sender chose to send none (RFC 768)
	}
	sum := checksum.Combine(pseudoSum(b, h.Proto), uint16(len(b)-h.Transport))
	return checksum.Checksum(b[h.Transport:], sum) == 0xffff
}

// Complete turns the partial checksum of b, parsed as h, into a complete one. It does nothing to
// packets that cannot have a partial one.
func Complete(b []byte, h *Header) {
	at, ok := h.ChecksumOffset(len(b))
	if !ok {
		return
	}
	sum := checksum.Combine(pseudoSum(b, h.Proto), uint16(len(b)-h.Transport))
	b[at], b[at+1] = 0, 0
	sum = ^checksum.Checksum(b[h.Transport:], sum)
	if sum == 0 && h.Proto == ProtoUDP {
		sum = 0xffff // zero would say that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(b[at:], sum)
}
