package netstack

import (
	"errors"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/adit-overlay/adit/packet"
)

// Errors of Deliver. The packet was dropped and counted; the next may be fine.
var (
	errMalformed  = errors.New("netstack: malformed packet")
	errOwnSource  = errors.New("netstack: packet from this peer's own address")
	errNotForHere = errors.New("netstack: packet for an address that is neither this peer's nor advertised")
)

// maxLend is the longest packet there can be.
const maxLend = 65535

// inlet is one goroutine's way into the stack.
type inlet struct {
	s    *Stack
	view *buffer.View // lent, or kept from a packet that was copied out of it
}

// Inlet returns a new way into the stack, for one goroutine. What its Lend returns is the
// memory the stack then keeps, so that payload is not copied until a reader takes it.
func (s *Stack) Inlet() packet.Inlet { return &inlet{s: s} }

// Lend implements [packet.Inlet].
func (in *inlet) Lend(n int) []byte {
	n = min(max(n, 0), maxLend)
	if in.view != nil && (in.view.Size() < n || in.view.Size() > 2*n) {
		in.view.Release()
		in.view = nil
	}
	if in.view == nil {
		in.view = buffer.NewViewSize(n)
	}
	return in.view.AsSlice()[:n]
}

// Deliver implements [packet.Inlet]. Packets whose checksums are neither partial nor verified are
// verified by the stack, fragments after they were put together again; one that proves wrong is
// dropped and counted in Stats, and Deliver does not learn of it.
func (in *inlet) Deliver(n int, o packet.Offload) error {
	if in.view == nil || n < 0 || n > in.view.Size() {
		in.s.stats.malformed.Add(1)
		return errMalformed
	}
	s := in.s
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.deaf {
		return net.ErrClosed
	}

	b := in.view.AsSlice()[:n]
	d, ok := parseDatagram(b)
	if !ok {
		s.stats.malformed.Add(1)
		return errMalformed
	}
	if s.isOwn(d.src) {
		s.stats.ownSource.Add(1)
		return errOwnSource
	}
	ip := s.ip
	if !s.isOwn(d.dst) {
		if s.forwards == nil || !s.forwards.allowed(d.dst) {
			s.stats.notForHere.Add(1)
			return errNotForHere
		}
		if s.forwards.takesEcho(d) {
			return nil
		}
		if d.isSYN() {
			s.forwards.reopen(d)
		}
		ip = s.forwards.ip
	}
	if d.understatesMTU() {
		s.stats.malformed.Add(1)
		return errMalformed
	}
	if offending := d.unreachable(); offending != nil {
		ip.unreachable(offending)
		return nil
	}

	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: in.give(n)})
	pkt.NetworkProtocolNumber = protocolOf(d.dst)
	ip.deliver(pkt, !d.plain || o.Checksum == packet.ChecksumComplete && !o.Super())
	pkt.DecRef()
	return nil
}

// headRoom is as much of a packet as its IP and TCP headers can be, without extension headers.
const headRoom = 128

// give hands over the first n bytes of the lent view. The stack accounts a packet by its bytes, not
// by the memory behind it, so that a short packet must not keep a long view alive: it is
// copied, and the view is lent again.
//
// Of other packets the headers are copied. The stack looks at them while it holds them twice, and before that makes
// a copy of the whole view they are in, which had better not be that of the payload.
func (in *inlet) give(n int) buffer.Buffer {
	b := in.view.AsSlice()
	if 2*n < len(b) || n <= headRoom {
		return buffer.MakeWithData(b[:n])
	}
	v := in.view
	in.view = nil
	v.CapLength(n)
	v.TrimFront(headRoom)
	whole := buffer.MakeWithData(b[:headRoom])
	whole.Append(v)
	return whole
}

// A datagram is what must be known of a received packet before the stack has it.
type datagram struct {
	b        []byte // the whole packet
	src, dst netip.Addr
	protocol uint8
	header   int  // length of the IP header, without extension headers
	plain    bool // neither a fragment, nor with extension headers whose end is not known
}

// parseDatagram reads the IP header of b. What is behind that is left for the stack to judge.
func parseDatagram(b []byte) (d datagram, ok bool) {
	h, err := packet.Parse(b)
	if err != nil {
		return d, false
	}
	d = datagram{b: b, src: h.Src, dst: h.Dst, protocol: h.Proto, header: h.Transport, plain: !h.Fragment}
	if h.Src.Is6() {
		switch h.Proto {
		case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMPv6:
		default:
			d.plain = false
		}
	}
	return d, true
}

// payload returns what follows the IP header.
func (d *datagram) payload() []byte { return d.b[d.header:] }

// isSYN reports whether d asks for a new TCP connection.
func (d *datagram) isSYN() bool {
	t := d.payload()
	return d.plain && d.protocol == uint8(header.TCPProtocolNumber) && len(t) >= header.TCPMinimumSize &&
		t[13]&(uint8(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst)) == uint8(header.TCPFlagSyn)
}
