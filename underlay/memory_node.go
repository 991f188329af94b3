package underlay

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Node is a carrier on a Memory.
type Node struct {
	net   *Memory
	local netip.AddrPort
	count counters

	// All below is guarded by net.mu, but lent: only the receiving goroutine touches it.
	addr      netip.AddrPort
	closed    bool
	unplugged bool
	held      int       // bytes of arriving and reading not handed out yet, with itemCost
	arrived   sync.Cond // arriving is not empty, or closed

	// Datagrams are put into arriving; when reading has been handed out they change places. What was
	// handed out so stays as it is until the next Receive.
	arriving, reading inbox
	lent              []byte
}

// inbox is a row of datagrams, back to back in data.
type inbox struct {
	data  []byte
	items []item
	next  int // the first item not handed out
	start int // its place in data
}

type item struct {
	from netip.AddrPort
	n    int
}

// itemCost is what a datagram takes up in a queue besides its bytes, so that the shortest have
// their limit too.
const itemCost = 64

// clobber fills memory that is no longer lent, so that a reader who kept it finds out.
const clobber = 0xDB

// put queues a datagram, and reports whether there was room. Needs net.mu.
func (n *Node) put(from netip.AddrPort, d []byte) bool {
	switch {
	case len(d) == 0: // from a tap or Inject
		n.count.empty.Add(1)
		return false
	case len(d) > MaxMessage:
		n.count.oversize.Add(1)
		return false
	}
	cost := len(d) + itemCost
	if n.held+cost > n.net.cfg.Queue {
		n.count.queueFull.Add(1)
		return false
	}
	n.held += cost
	n.arriving.data = append(n.arriving.data, d...)
	n.arriving.items = append(n.arriving.items, item{from, len(d)})
	n.arrived.Signal()
	return true
}

// Receive implements Carrier. Memory lent before is overwritten.
func (n *Node) Receive(ms []Message) (int, error) {
	if len(ms) == 0 {
		return 0, nil
	}
	for i := range n.lent {
		n.lent[i] = clobber
	}
	n.lent = nil

	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	for !n.closed && !n.reading.more() && !n.arriving.more() {
		n.arrived.Wait()
	}
	if n.closed {
		return 0, net.ErrClosed
	}
	if !n.reading.more() {
		n.reading.reset()
		n.arriving, n.reading = n.reading, n.arriving
	}
	begin := n.reading.start
	filled := 0
	for filled < len(ms) && n.reading.more() {
		ms[filled] = n.take()
		filled++
	}
	n.lent = n.reading.data[begin:n.reading.start]
	n.count.received(ms[:filled])
	return filled, nil
}

// take hands out one message of reading. Needs net.mu.
func (n *Node) take() Message {
	in := &n.reading
	first := in.items[in.next]
	begin, seg := in.start, first.n
	last := n.pass()
	for count := 1; n.net.cfg.Coalesce && in.more() && count < MaxSegments; count++ {
		next := in.items[in.next]
		// Only the last datagram of a message may be shorter.
		if last < seg || next.n > seg || next.from != first.from || in.start+next.n-begin > MaxMessage {
			break
		}
		last = n.pass()
	}
	return Message{Buf: in.data[begin:in.start:in.start], Seg: seg, Addr: first.from}
}

// pass steps over the next datagram of reading, and returns its length. Needs net.mu.
func (n *Node) pass() int {
	in := &n.reading
	size := in.items[in.next].n
	in.next++
	in.start += size
	n.held -= size + itemCost
	return size
}

func (in *inbox) more() bool { return in.next < len(in.items) }

func (in *inbox) reset() {
	*in = inbox{data: in.data[:0], items: in.items[:0]}
}

// Send implements Carrier. It never waits. What a link does to a datagram is no error, as the
// sender of a real network would not learn of it.
func (n *Node) Send(ms []Message) error {
	n.count.messagesSent.Add(uint64(len(ms)))
	if tap := n.net.tap.Load(); tap != nil {
		return n.sendTapped(ms, *tap)
	}
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if n.closed {
		return net.ErrClosed
	}
	return n.each(ms, func(to netip.AddrPort, d []byte) { n.net.carry(n.addr, to, d) })
}

// Probe implements Carrier: no link of a Memory fragments.
func (n *Node) Probe(m Message) error {
	if err := m.checkOne(); err != nil {
		n.count.sendErrors.Add(1)
		return fmt.Errorf("underlay: probe: %w", err)
	}
	return n.Send([]Message{m})
}

// sendTapped shows every datagram to tap first, without the lock.
func (n *Node) sendTapped(ms []Message, tap Tap) error {
	from, err := n.source()
	if err != nil {
		return err
	}
	return n.each(ms, func(to netip.AddrPort, d []byte) {
		d = tap(from, to, append([]byte(nil), d...))
		n.net.mu.Lock()
		defer n.net.mu.Unlock()
		if d == nil {
			n.net.stats.Sent++
			n.net.end(Passage{From: from, To: to, Sent: time.Now()}, FateTapped)
			return
		}
		n.net.carry(from, to, d)
	})
}

// each calls carry for every datagram of ms, and returns the first error of what is no message.
func (n *Node) each(ms []Message, carry func(to netip.AddrPort, d []byte)) error {
	var failed error
	for i := range ms {
		m := &ms[i]
		if err := checkAddressed(m); err != nil {
			n.count.sendErrors.Add(1)
			if failed == nil {
				failed = fmt.Errorf("underlay: send: to %s: %w", m.Addr, err)
			}
			continue
		}
		to := unmapped(m.Addr)
		for rest := m.Buf; len(rest) > 0; {
			size := min(m.Seg, len(rest))
			carry(to, rest[:size:size])
			rest = rest[size:]
		}
		n.count.datagramsSent.Add(uint64(m.datagrams()))
	}
	return failed
}

// source is the address datagrams come from now.
func (n *Node) source() (netip.AddrPort, error) {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if n.closed {
		return netip.AddrPort{}, net.ErrClosed
	}
	return n.addr, nil
}

// LocalAddr returns the address the node was attached at. As behind a NAT, it is not told when
// others see it at a new one.
func (n *Node) LocalAddr() netip.AddrPort { return n.local }

// Rebind moves the node to addr, as a NAT does that has lost its mapping: what it sends comes from
// there, and what is sent to the old address, even if on its way already, is dropped.
func (n *Node) Rebind(addr netip.AddrPort) error {
	addr = unmapped(addr)
	m := n.net
	m.mu.Lock()
	defer m.mu.Unlock()
	if n.closed {
		return net.ErrClosed
	}
	if err := m.free(addr); err != nil {
		return fmt.Errorf("underlay: rebind: %w", err)
	}
	delete(m.nodes, n.addr)
	n.addr = addr
	m.nodes[addr] = n
	return nil
}

// Unplug takes the node's cable out, as for a host that sleeps: what it sends is dropped, and what arrives for it. It
// is not told.
func (n *Node) Unplug() { n.setUnplugged(true) }

// Plug undoes Unplug.
func (n *Node) Plug() { n.setUnplugged(false) }

func (n *Node) setUnplugged(unplugged bool) {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	n.unplugged = unplugged
}

// Close implements Carrier. What was not received is gone.
func (n *Node) Close() error {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	n.arriving, n.reading = inbox{}, inbox{}
	n.arrived.Broadcast()
	n.net.detach(n)
	return nil
}

// Stats returns what the node has done so far.
func (n *Node) Stats() Stats { return n.count.snapshot() }
