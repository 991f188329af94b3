package packet

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// MaxLen is the most an IPv4 length field can say, and the longest packet there is here.
const MaxLen = 65535

// A Coalescer puts consecutive segments of one TCP stream together into super-packets and
// delivers these, and all other packets, to an inlet in the order they came.
//
// It tells where each packet is to be opened. When a segment may continue the super-packet under
// construction, that place is such that its payload lands right behind what is there: its
// headers then lie over the last bytes of that, which are kept aside meanwhile. For each packet:
//
//	dst := c.Room(n, more)       // open the packet into dst
//	c.Discard()                  // ... it was bad, or is not for the device; or
//	c.Join(partial)              // ... it continued the super-packet; done; or, when that is false,
//	pkt := c.Settle()            // ... it stands alone: look at it, then Discard or
//	c.Begin(&h, partial)         // ... deliver it, possibly as the first of a super-packet
//
// and Flush at the end of a batch. It is used by one goroutine.
type Coalescer struct {
	in   Inlet
	errs func(error) // told of errors of Deliver

	buf   []byte           // lent by the inlet
	at    int              // where in buf the present packet is
	n     int              // its length; 0 when there is none
	save  [maxHeaders]byte // what its headers lie over
	aside []byte

	// The super-packet under construction.
	used    int    // bytes of it; 0 when there is none
	ip      int    // length of its IP header
	hdr     int    // length of all its headers
	size    int    // payload of each segment but the last
	next    uint32 // the sequence number that continues it
	count   int    // segments in it
	partial bool   // the checksum of the first segment is partial (if not, it is verified)
}

// maxHeaders is the longest run of IP and TCP headers that is coalesced: no IPv4 options or IPv6
// extensions, but any TCP options.
const maxHeaders = IPv6HeaderLen + 60

// NewCoalescer returns a Coalescer that delivers to in. Errors of the inlet are given to
// errs, one a packet.
func NewCoalescer(in Inlet, errs func(error)) *Coalescer {
	return &Coalescer{in: in, errs: errs}
}

// Room returns where to put the next packet of n bytes, 1 <= n <= 65535. The caller expects
// about more bytes of packets to follow it in this batch.
func (c *Coalescer) Room(n, more int) []byte {
	c.n = n
	if c.used > 0 {
		payload := n - c.hdr
		if payload > 0 && payload <= c.size && c.used+payload <= len(c.buf) {
			c.at = c.used - c.hdr
			copy(c.save[:c.hdr], c.buf[c.at:])
			return c.buf[c.at : c.at+n : c.at+n]
		}
		c.Flush()
	}
	c.lend(n, more)
	return c.buf[:n:n]
}

func (c *Coalescer) lend(n, more int) {
	if n < minRun {
		more = 0
	}
	c.buf = c.in.Lend(min(n+more, MaxLen))
	c.at = 0
}

// minRun is the least length of a packet that begins a super-packet. Acknowledgements and other
// small packets are not worth the larger room; and a payload longer than the headers keeps those
// of the first segment out of the way of those of the second.
const minRun = 500

// Discard forgets the packet for which Room or Settle was called last.
func (c *Coalescer) Discard() {
	if c.used > 0 {
		copy(c.buf[c.at:], c.save[:c.hdr])
	}
	c.n = 0
}

// Join appends the packet to the super-packet under construction if it is that one's
// continuation, headers alike, and reports whether it was. Its source and destination are
// then those of the first.
func (c *Coalescer) Join(partial bool) bool {
	if c.used == 0 {
		return false
	}
	pkt := c.buf[c.at : c.at+c.n]
	first := c.buf[:c.hdr]
	if !continues(first, pkt, c.ip, c.next) || !partial && !verifyTCP(pkt, c.ip) {
		return false
	}
	payload := c.n - c.hdr
	flags := pkt[c.ip+13]
	copy(c.buf[c.at:], c.save[:c.hdr])
	c.used += payload
	c.next += uint32(payload)
	c.count++
	c.buf[c.ip+13] |= flags & (tcpPSH | tcpFIN)
	c.n = 0
	if payload < c.size || flags&(tcpPSH|tcpFIN) != 0 {
		c.Flush()
	}
	return true
}

// Settle delivers the super-packet under construction, if there is one, and returns the packet,
// now alone in its room.
func (c *Coalescer) Settle() []byte {
	if c.used > 0 {
		// The packet lies across memory that is about to be given away.
		c.aside = append(c.aside[:0], c.buf[c.at:c.at+c.n]...)
		copy(c.buf[c.at:], c.save[:c.hdr])
		c.Flush()
		c.lend(c.n, 8*c.n)
		copy(c.buf, c.aside)
	}
	return c.buf[:c.n:c.n]
}

// Begin accepts the settled packet, parsed as h. If it can be the first of a super-packet it is
// kept for what follows, and else delivered. It returns ErrOffload, and discards the packet, if
// partial is set for a packet that has no such checksum.
func (c *Coalescer) Begin(h *Header, partial bool) error {
	n := c.n
	c.n = 0
	pkt := c.buf[:n]
	o := Offload{}
	if partial {
		if _, ok := h.ChecksumOffset(n); !ok {
			return ErrOffload
		}
		o = Offload{Checksum: ChecksumPartial, Transport: h.Transport}
	}
	hdr, ok := startsRun(pkt, h)
	if !ok || n < minRun || len(c.buf) == n {
		c.deliver(n, o)
		return nil
	}
	if !partial && !verifyTCP(pkt, h.Transport) {
		c.deliver(n, o) // whoever ends the connection drops it, and counts it there
		return nil
	}
	c.used, c.ip, c.hdr, c.size, c.count, c.partial = n, h.Transport, hdr, n-hdr, 1, partial
	c.next = binary.BigEndian.Uint32(pkt[c.ip+4:]) + uint32(c.size)
	return nil
}

// Flush delivers the super-packet under construction, if there is one.
func (c *Coalescer) Flush() {
	n := c.used
	if n == 0 {
		return
	}
	c.used = 0
	if c.count == 1 {
		o := Offload{Checksum: ChecksumVerified}
		if c.partial {
			o = Offload{Checksum: ChecksumPartial, Transport: c.ip}
		}
		c.deliver(n, o)
		return
	}
	pkt := c.buf[:n]
	if pkt[0]>>4 == 4 {
		binary.BigEndian.PutUint16(pkt[2:], uint16(n))
		sumIPv4(pkt[:c.ip])
	} else {
		binary.BigEndian.PutUint16(pkt[4:], uint16(n-c.ip))
	}
	sum := checksum.Combine(pseudoSum(pkt, ProtoTCP), uint16(n-c.ip))
	binary.BigEndian.PutUint16(pkt[c.ip+tcpChecksum:], sum)
	c.deliver(n, Offload{Checksum: ChecksumPartial, Transport: c.ip, Header: c.hdr, Segment: c.size})
}

func (c *Coalescer) deliver(n int, o Offload) {
	c.buf = nil
	if err := c.in.Deliver(n, o); err != nil {
		c.errs(err)
	}
}

// startsRun reports whether the packet can be the first segment of a super-packet, and the length
// of its headers: TCP with payload, no IPv4 options, no flag but ACK.
func startsRun(pkt []byte, h *Header) (hdr int, ok bool) {
	if h.Proto != ProtoTCP || h.Fragment || len(pkt) < h.Transport+TCPHeaderLen || pkt[0]>>4 == 4 && h.Transport != IPv4HeaderLen {
		return 0, false
	}
	hdr = h.Transport + int(pkt[h.Transport+12]>>4)*4
	return hdr, hdr >= h.Transport+TCPHeaderLen && hdr < len(pkt) && pkt[h.Transport+13] == tcpACK
}

// continues reports whether pkt is the segment that follows a super-packet that began with the
// headers first: everything alike but lengths, checksums, the IPv4 identification, the
// sequence number, and the flags that end a run. pkt is at least as long as first and one byte.
func continues(first, pkt []byte, ip int, next uint32) bool {
	if pkt[0] != first[0] || pkt[1] != first[1] {
		return false
	}
	if ip == IPv4HeaderLen {
		if int(binary.BigEndian.Uint16(pkt[2:])) != len(pkt) ||
			string(pkt[6:8]) != string(first[6:8]) || // fragment word
			pkt[8] != first[8] || pkt[9] != first[9] ||
			string(pkt[12:20]) != string(first[12:20]) {
			return false
		}
	} else if string(pkt[2:4]) != string(first[2:4]) ||
		int(binary.BigEndian.Uint16(pkt[4:]))+IPv6HeaderLen != len(pkt) ||
		string(pkt[6:40]) != string(first[6:40]) {
		return false
	}
	t, f := pkt[ip:], first[ip:]
	return string(t[0:4]) == string(f[0:4]) && // ports
		binary.BigEndian.Uint32(t[4:]) == next &&
		string(t[8:13]) == string(f[8:13]) && // acknowledgement, header length
		(t[13]^f[13])&^(tcpPSH|tcpFIN) == 0 &&
		string(t[14:16]) == string(f[14:16]) && // window
		string(t[18:len(f)]) == string(f[18:]) // urgent pointer, options
}

// verifyTCP reports whether the checksum of the TCP packet b with an IP header of ip bytes is right.
func verifyTCP(b []byte, ip int) bool {
	sum := checksum.Combine(pseudoSum(b, ProtoTCP), uint16(len(b)-ip))
	return checksum.Checksum(b[ip:], sum) == 0xffff
}
