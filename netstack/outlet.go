package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/adit-overlay/adit/packet"
)

// One Read returns at most readBatch packets, and stops after readBytes: enough to spread the cost of a
// wake, few enough that a batch of super-packets stays in the cache, and that goroutines that share
// the work have some each.
const (
	readBatch = 32
	readBytes = 256 << 10
)

// outlet is a way out of the stack.
type outlet struct {
	queue *sendQueue
	held  [readBatch]*stack.PacketBuffer // whose views the last batch consists of
	n     int
}

// Outlet returns one more outlet of the device. All return what is queued as it comes.
func (s *Stack) Outlet() packet.Outlet { return &outlet{queue: s.queue} }

// Read waits for packets the stack sends and fills b with them. Their memory is borrowed
// until the next Read; only one goroutine may call it. After Close it returns what was still
// queued, and then net.ErrClosed; there is no other error.
func (s *Stack) Read(b *packet.Batch) error { return s.outlet.Read(b) }

// Read implements [packet.Outlet].
func (o *outlet) Read(b *packet.Batch) error {
	o.release()
	b.Reset()
	n, err := o.queue.take(o.held[:], readBytes)
	if err != nil {
		return err
	}
	o.n = n
	for _, pkt := range o.held[:n] {
		describe(b.Add(), pkt)
	}
	return nil
}

func (o *outlet) release() {
	for i, pkt := range o.held[:o.n] {
		pkt.DecRef()
		o.held[i] = nil
	}
	o.n = 0
}

// describe fills p with the bytes of pkt and what is known about them.
func describe(p *packet.Packet, pkt *stack.PacketBuffer) {
	views, offset := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if offset >= len(b) {
			offset -= len(b)
			continue
		}
		p.Pieces = append(p.Pieces, b[offset:])
		offset = 0
	}

	// TCP segments with payload have the pseudo-header sum only; all else that the stack sends
	// (segments without payload, UDP, ICMP, fragments) has complete checksums.
	gso := &pkt.GSOOptions
	if gso.Type != stack.GSOTCPv4 && gso.Type != stack.GSOTCPv6 || !gso.NeedsCsum {
		return
	}
	network, transport := len(pkt.NetworkHeader().Slice()), len(pkt.TransportHeader().Slice())
	if transport < header.TCPMinimumSize {
		return
	}
	p.Checksum = packet.ChecksumPartial
	p.Transport = network
	headers := network + transport
	if p.Len()-headers > int(gso.MSS) {
		p.Header = headers
		p.Segment = int(gso.MSS)
	}
	gather(p, headers)
}

// gather makes the first headers bytes of p one run. The stack pushes all headers into one view,
// so that this is a check that costs nothing; should that ever change, they are copied.
func gather(p *packet.Packet, headers int) {
	if len(p.Pieces[0]) >= headers {
		return
	}
	first := make([]byte, 0, headers)
	rest := p.Pieces
	for len(first) < headers && len(rest) > 0 {
		n := min(headers-len(first), len(rest[0]))
		first = append(first, rest[0][:n]...)
		if rest[0] = rest[0][n:]; len(rest[0]) == 0 {
			rest = rest[1:]
		}
	}
	p.Pieces = append([][]byte{first}, rest...)
}
