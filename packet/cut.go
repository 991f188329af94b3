package packet

import (
	"encoding/binary"
	"errors"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// TCP flags that belong to one segment of a super-packet only.
const (
	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpRST = 0x04
	tcpPSH = 0x08
	tcpACK = 0x10
	tcpURG = 0x20
	tcpCWR = 0x80
)

// ErrOffload says that a super-packet's offload metadata does not fit its bytes.
var ErrOffload = errors.New("packet: offload metadata does not fit the packet")

// A Cutter writes a packet out segment by segment. An ordinary packet comes out as the one
// segment that it is. It is used by one goroutine, again and again.
type Cutter struct {
	piece   []byte   // what is not yet written of the present piece
	pieces  [][]byte // the pieces after it
	hdr     []byte   // all headers of a super-packet
	ip      int      // length of the IP header
	size    int      // bytes of a segment but the last
	left    int      // bytes of payload not yet written (of the packet, if it is ordinary)
	seq     uint32
	id      uint16
	sum     uint16 // over the pseudo-header but for the length
	flags   byte
	first   bool
	partial bool
	super   bool
	v4      bool
}

// Start begins with p. The segments of a super-packet will have partial checksums if partial is
// set, and complete ones if not; an ordinary packet passes as it is.
func (c *Cutter) Start(p *Packet, partial bool) error {
	n := p.Len()
	if n == 0 {
		return ErrOffload
	}
	*c = Cutter{piece: p.Pieces[0], pieces: p.Pieces[1:], left: n, size: n}
	if !p.Super() {
		return nil
	}
	h := p.Pieces[0]
	if len(h) < p.Header || p.Header < p.Transport+TCPHeaderLen || p.Header >= n || p.Transport < IPv4HeaderLen {
		return ErrOffload
	}
	c.v4 = h[0]>>4 == 4
	c.ip = p.Transport
	if !c.v4 && c.ip != IPv6HeaderLen || int(h[c.ip+12]>>4)*4 != p.Header-c.ip {
		return ErrOffload
	}
	c.behead(p.Header, partial)
	c.size = p.Header + p.Segment
	return nil
}

// behead takes the headers, which end at n, from the first piece, to be written before each segment.
func (c *Cutter) behead(n int, partial bool) {
	h := c.piece
	c.super, c.partial, c.first = true, partial, true
	c.hdr, c.piece = h[:n], h[n:]
	c.left -= n
	c.seq = binary.BigEndian.Uint32(h[c.ip+4:])
	c.flags = h[c.ip+13]
	c.id = binary.BigEndian.Uint16(h[4:])
	c.sum = pseudoSum(h, ProtoTCP)
}

// Bound makes every segment at most n bytes long, and reports whether that can be. It is called between Start(p, partial) and
// the first Next.
//
// Besides super-packets, a TCP packet with a partial checksum can be cut: it is a super-packet of one segment. One
// whose checksum is complete is left alone, for what it covers may have been damaged before it came here.
func (c *Cutter) Bound(p *Packet, n int) bool {
	if c.size <= n {
		return true
	}
	if !c.super {
		hdr, ok := divisible(p, c.left)
		if !ok || n <= hdr {
			return false
		}
		c.v4, c.ip = p.Pieces[0][0]>>4 == 4, p.Transport
		c.behead(hdr, true)
	}
	if n <= len(c.hdr) {
		return false
	}
	c.size = n
	return true
}

// divisible reports whether p, a single packet of size bytes, can be cut like a super-packet, and how long its headers are.
func divisible(p *Packet, size int) (hdr int, ok bool) {
	b, ip := p.Pieces[0], p.Transport
	if p.Checksum != ChecksumPartial || len(b) < IPv4HeaderLen {
		return 0, false
	}
	h, err := ParseHead(b, size)
	if err != nil || h.Proto != ProtoTCP || h.Fragment || ip != h.Transport || len(b) < ip+TCPHeaderLen {
		return 0, false
	}
	hdr = ip + int(b[ip+12]>>4)*4
	whole := hdr >= ip+TCPHeaderLen && hdr <= len(b) && hdr < size
	return hdr, whole && b[ip+13]&(tcpSYN|tcpRST|tcpURG) == 0
}

// Segments is how many segments are left.
func (c *Cutter) Segments() int {
	if !c.super {
		return min(c.left, 1)
	}
	seg := c.size - len(c.hdr)
	return (c.left + seg - 1) / seg
}

// Size is the length in bytes of the next segment; 0 when there is none.
func (c *Cutter) Size() int {
	if c.left == 0 {
		return 0
	}
	return min(c.size, len(c.hdr)+c.left)
}

// Next writes the next segment to dst, which must be Size bytes long.
func (c *Cutter) Next(dst []byte) {
	c.fill(dst[copy(dst, c.hdr):])
	if !c.super {
		return
	}
	n := len(dst)
	if c.v4 {
		binary.BigEndian.PutUint16(dst[2:], uint16(n))
		binary.BigEndian.PutUint16(dst[4:], c.id)
		c.id++
		sumIPv4(dst[:c.ip])
	} else {
		binary.BigEndian.PutUint16(dst[4:], uint16(n-c.ip))
	}
	tcp := dst[c.ip:]
	binary.BigEndian.PutUint32(tcp[4:], c.seq)
	c.seq += uint32(n - len(c.hdr))
	flags := c.flags
	if c.left > 0 {
		flags &^= tcpFIN | tcpPSH // the last segment's
	}
	if !c.first {
		flags &^= tcpCWR // the first segment's (RFC 3168, section 6.1.2)
	}
	c.first = false
	tcp[13] = flags
	sum := checksum.Combine(c.sum, uint16(n-c.ip))
	if !c.partial {
		tcp[tcpChecksum], tcp[tcpChecksum+1] = 0, 0
		sum = ^checksum.Checksum(tcp, sum)
	}
	binary.BigEndian.PutUint16(tcp[tcpChecksum:], sum)
}

// fill copies the next len(dst) bytes of payload.
func (c *Cutter) fill(dst []byte) {
	c.left -= len(dst)
	for {
		n := copy(dst, c.piece)
		c.piece = c.piece[n:]
		if dst = dst[n:]; len(dst) == 0 {
			return
		}
		c.piece, c.pieces = c.pieces[0], c.pieces[1:]
	}
}
