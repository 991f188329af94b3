package tun

import (
	"encoding/binary"
	"errors"

	"github.com/adit-overlay/adit/packet"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// virtioLen is the length of the header before each packet.
const virtioLen = 10

// frameSize is room for a header and any packet.
const frameSize = virtioLen + maxPacket

// Flags and GSO types of the header, as in linux/virtio_net.h.
const (
	needsChecksum = 1 // the checksum is to be completed, from start on
	dataValid     = 2 // the checksum is complete and found right

	gsoNone  = 0
	gsoTCPv4 = 1
	gsoTCPv6 = 4
	gsoECN   = 0x80 // besides the type: the first segment has CWR set
)

// Where the checksum lies in the transport header.
const (
	tcpChecksum = 16
	udpChecksum = 6
)

const tcpCWR = 0x80 // among the TCP flags: congestion window reduced

// A virtioHeader is the kernel's word on a packet. Offsets count from the start of the packet.
type virtioHeader struct {
	flags          uint8
	gsoType        uint8
	headerLen      uint16 // on reading a hint that may be too much or too little
	gsoSize        uint16
	checksumStart  uint16
	checksumOffset uint16 // from checksumStart
}

// readHeader reads the header from b, virtioLen bytes long or longer.
func readHeader(b []byte) virtioHeader {
	_ = b[virtioLen-1]
	return virtioHeader{
		flags:          b[0],
		gsoType:        b[1],
		headerLen:      binary.NativeEndian.Uint16(b[2:]),
		gsoSize:        binary.NativeEndian.Uint16(b[4:]),
		checksumStart:  binary.NativeEndian.Uint16(b[6:]),
		checksumOffset: binary.NativeEndian.Uint16(b[8:]),
	}
}

// put writes h to b, virtioLen bytes long or longer.
func (h virtioHeader) put(b []byte) {
	_ = b[virtioLen-1]
	b[0] = h.flags
	b[1] = h.gsoType
	binary.NativeEndian.PutUint16(b[2:], h.headerLen)
	binary.NativeEndian.PutUint16(b[4:], h.gsoSize)
	binary.NativeEndian.PutUint16(b[6:], h.checksumStart)
	binary.NativeEndian.PutUint16(b[8:], h.checksumOffset)
}

// Reasons to drop what the kernel gave.
var (
	errFrameShort    = errors.New("shorter than the virtio header and an IP header")
	errGSOType       = errors.New("segmentation that was not asked for")
	errGSOHeader     = errors.New("segmentation offload that does not fit the packet")
	errChecksumPlace = errors.New("checksum position beyond the packet")
)

// errExtension says that a super-packet is sound but has extension headers between IP and TCP. No
// Offload can describe it: it is to be cut up at once.
var errExtension = errors.New("super-packet with extension headers")

// add adds to b the packet, or packets, of a frame read from the kernel.
func add(b *packet.Batch, frame []byte) error {
	if len(frame) <= virtioLen {
		return errFrameShort
	}
	h, ip := readHeader(frame), frame[virtioLen:]
	o, err := decode(h, ip)
	if err == errExtension {
		cutExtended(b, ip, o)
		return nil
	}
	if err != nil {
		return err
	}
	p := b.Add()
	p.Pieces = append(p.Pieces, ip)
	p.Offload = o
	return nil
}

// decode returns the Offload of the packet ip that came with the header h. A checksum that no Offload
// can describe is completed in place.
func decode(h virtioHeader, ip []byte) (packet.Offload, error) {
	if len(ip) == 0 {
		return packet.Offload{}, errFrameShort
	}
	switch gso := h.gsoType &^ gsoECN; {
	case h.gsoType == gsoNone:
		return decodeOrdinary(h, ip)
	case gso == gsoTCPv4 && ip[0]>>4 == 4, gso == gsoTCPv6 && ip[0]>>4 == 6:
		return decodeSuper(h, ip)
	default:
		return packet.Offload{}, errGSOType
	}
}

func decodeOrdinary(h virtioHeader, ip []byte) (packet.Offload, error) {
	switch {
	case h.flags&needsChecksum != 0:
		at := int(h.checksumStart) + int(h.checksumOffset)
		if at+2 > len(ip) {
			return packet.Offload{}, errChecksumPlace
		}
		// Offload names the place by the transport header alone, so it must be the usual one.
		p, err := packet.Parse(ip)
		if usual, ok := p.ChecksumOffset(len(ip)); err == nil && ok && usual == at && p.Transport == int(h.checksumStart) {
			return packet.Offload{Checksum: packet.ChecksumPartial, Transport: p.Transport}, nil
		}
		complete(ip, int(h.checksumStart), at)
		return packet.Offload{}, nil
	case h.flags&dataValid != 0:
		return packet.Offload{Checksum: packet.ChecksumVerified}, nil
	default:
		return packet.Offload{}, nil
	}
}

func decodeSuper(h virtioHeader, ip []byte) (packet.Offload, error) {
	p, err := packet.Parse(ip)
	if err != nil || p.Fragment {
		return packet.Offload{}, errGSOHeader
	}
	if int(h.headerLen) > len(ip) || h.gsoSize == 0 {
		return packet.Offload{}, errGSOHeader
	}
	transport := p.Transport
	extended := false
	switch {
	case h.flags&needsChecksum != 0:
		if h.checksumOffset != tcpChecksum || int(h.checksumStart) < transport {
			return packet.Offload{}, errGSOHeader
		}
		extended = int(h.checksumStart) > transport
		transport = int(h.checksumStart)
	case h.flags&dataValid == 0:
		// Segments get new checksums. Over bytes that nobody has verified these would be a lie.
		return packet.Offload{}, errGSOHeader
	}
	if extended != (p.Proto != packet.ProtoTCP) || extended && ip[0]>>4 == 4 {
		return packet.Offload{}, errGSOHeader
	}
	if len(ip) < transport+packet.TCPHeaderLen {
		return packet.Offload{}, errGSOHeader
	}
	header := transport + int(ip[transport+12]>>4)*4
	if header < transport+packet.TCPHeaderLen || header > len(ip) {
		return packet.Offload{}, errGSOHeader
	}
	o := packet.Offload{Checksum: packet.ChecksumPartial, Transport: transport}
	if len(ip)-header > int(h.gsoSize) {
		o.Header, o.Segment = header, int(h.gsoSize)
	}
	switch {
	case extended && o.Super():
		if segments := (len(ip)-header)/o.Segment + 1; segments*header > maxCopiedHeaders {
			return packet.Offload{}, errGSOHeader
		}
		return o, errExtension
	case extended:
		complete(ip, transport, transport+tcpChecksum)
		return packet.Offload{}, nil
	case h.flags&needsChecksum == 0:
		// Found right by whoever passed it on, so the field may as well be partial.
		binary.BigEndian.PutUint16(ip[transport+tcpChecksum:], pseudoSum(ip, len(ip)-transport))
	}
	return o, nil
}

// complete completes the checksum at ip[at:], which covers ip[start:] and holds a partial sum. As the kernel
// does, it never makes a sum of zero, which UDP takes for none and which others may take for the
// same as 0xffff.
func complete(ip []byte, start, at int) {
	partial := binary.BigEndian.Uint16(ip[at:])
	ip[at], ip[at+1] = 0, 0
	sum := ^checksum.Checksum(ip[start:], partial)
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(ip[at:], sum)
}

// pseudoSum is the sum over the pseudo-header of a TCP packet of n bytes from its TCP header on.
func pseudoSum(ip []byte, n int) uint16 {
	sum := checksum.Combine(packet.ProtoTCP, uint16(n))
	if ip[0]>>4 == 4 {
		return checksum.Checksum(ip[12:20], sum)
	}
	return checksum.Checksum(ip[8:40], sum)
}

// ErrOffload is what Deliver returns for an Offload that does not fit its packet.
var ErrOffload = errors.New("tun: offload does not fit the packet")

// encode returns the header that tells the kernel what o says of the packet ip. It computes no
// checksum: where o says that it is partial, the field holds the pseudo-header sum already.
func encode(ip []byte, o packet.Offload) (virtioHeader, error) {
	switch {
	case len(ip) == 0:
		return virtioHeader{}, ErrOffload
	case o.Super():
		return encodeSuper(ip, o)
	case o.Checksum == packet.ChecksumPartial:
		return encodePartial(ip, o)
	case o.Checksum == packet.ChecksumVerified:
		return virtioHeader{flags: dataValid}, nil
	default:
		return virtioHeader{}, nil
	}
}

func encodeSuper(ip []byte, o packet.Offload) (virtioHeader, error) {
	if o.Checksum != packet.ChecksumPartial || o.Transport < packet.IPv4HeaderLen ||
		o.Header < o.Transport+packet.TCPHeaderLen || o.Header > len(ip) || o.Segment > maxPacket {
		return virtioHeader{}, ErrOffload
	}
	h := virtioHeader{
		flags:          needsChecksum,
		headerLen:      uint16(o.Header),
		checksumStart:  uint16(o.Transport),
		checksumOffset: tcpChecksum,
	}
	if len(ip)-o.Header <= o.Segment {
		return h, nil // one segment; the kernel refuses to call that a super-packet
	}
	h.gsoSize = uint16(o.Segment)
	switch ip[0] >> 4 {
	case 4:
		h.gsoType = gsoTCPv4
	case 6:
		h.gsoType = gsoTCPv6
	default:
		return virtioHeader{}, ErrOffload
	}
	if ip[o.Transport+13]&tcpCWR != 0 {
		h.gsoType |= gsoECN // or the kernel would repeat the flag in each segment
	}
	return h, nil
}

func encodePartial(ip []byte, o packet.Offload) (virtioHeader, error) {
	var proto uint8
	switch {
	case ip[0]>>4 == 4 && len(ip) >= packet.IPv4HeaderLen && o.Transport >= packet.IPv4HeaderLen:
		proto = ip[9]
	case ip[0]>>4 == 6 && len(ip) >= packet.IPv6HeaderLen && o.Transport >= packet.IPv6HeaderLen:
		proto = ip[6]
	default:
		return virtioHeader{}, ErrOffload
	}
	h := virtioHeader{flags: needsChecksum, checksumStart: uint16(o.Transport)}
	switch proto {
	case packet.ProtoTCP:
		h.checksumOffset = tcpChecksum
	case packet.ProtoUDP:
		h.checksumOffset = udpChecksum
	default:
		return virtioHeader{}, ErrOffload
	}
	if o.Transport+int(h.checksumOffset)+2 > len(ip) {
		return virtioHeader{}, ErrOffload
	}
	return h, nil
}
