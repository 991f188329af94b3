package netstack

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/adit-overlay/adit/packet"
)

// farLine is a line between two stacks, the same in both directions. The segments of a super-packet are lost one by
// one; the seed settles which.
type farLine struct {
	rtt   time.Duration
	rate  float64       // bits a second; 0: 1 Gbit/s
	queue time.Duration // how long a segment may wait for its turn, or it is dropped; 0: without limit
	loss  float64       // share of segments
	late  float64       // share of segments that arrive a quarter of a round trip late, behind those sent after them
	seed  uint64
	drop  func(from *farEnd, payload int) bool // loses what it says, besides

	others int // connections that each end had before
}

const (
	// What comes within one poll a receiver takes together, and joins so many segments in a row.
	farPoll = 30 * time.Microsecond
	farJoin = 8

	// farLeastLate is enough to be overtaken where there is hardly a round trip.
	farLeastLate = 500 * time.Microsecond

	// farWrapping is what a segment has around it on the line.
	farWrapping = 80
)

// A farPair is two stacks with a TCP connection from a to b, in a time of their own that jumps from event to event. Events
// happen in the goroutine that calls run. It waits for those of the stacks after each, so that a run can be repeated.
type farPair struct {
	*eventClock
	line farLine
	a, b *farEnd
}

// farEnd is one of the stacks, and the line away from it.
type farEnd struct {
	pair *farPair
	peer *farEnd
	s    *Stack
	wq   *waiter.Queue
	ep   tcpip.Endpoint

	rand     *rand.Rand
	free     time.Duration // when the line has sent all that it has
	arriving *farBatch
	lost     int // segments with payload
}

// farBatch is what one poll finds.
type farBatch struct {
	at      time.Duration
	packets [][]byte
	joined  []int // segments in each
}

// newFarPair returns stacks that are connected, over a line that loses nothing until then.
func newFarPair(t testing.TB, line farLine) *farPair {
	t.Helper()
	if line.rate == 0 {
		line.rate = 1e9
	}
	p := &farPair{eventClock: &eventClock{}}
	p.line = farLine{rtt: line.rtt, rate: line.rate, others: line.others}
	p.a, p.b = p.end(t, addrA, 2*line.seed), p.end(t, addrB, 2*line.seed+1)
	p.a.peer, p.b.peer = p.b, p.a

	check := func(err tcpip.Error) {
		t.Helper()
		if _, started := err.(*tcpip.ErrConnectStarted); err != nil && !started {
			t.Fatal(err)
		}
	}
	const port = 80
	var wq waiter.Queue
	l, err := p.b.s.ip.g.NewEndpoint(tcp.ProtocolNumber, header.IPv4ProtocolNumber, &wq)
	check(err)
	check(l.Bind(tcpip.FullAddress{Port: port}))
	check(l.Listen(backlog))
	p.a.ep, err = p.a.s.ip.g.NewEndpoint(tcp.ProtocolNumber, header.IPv4ProtocolNumber, p.a.wq)
	check(err)
	check(p.a.ep.Connect(tcpip.FullAddress{Addr: addressOf(netip.MustParseAddr(addrB)), Port: port}))
	p.run(2*line.rtt+time.Millisecond, func() {})
	p.b.ep, p.b.wq, err = l.Accept(nil)
	check(err)
	l.Close()
	for _, e := range []*farEnd{p.a, p.b} {
		e.s.tuning.adapt(e.s, e.ep)
		t.Cleanup(e.ep.Abort)
	}
	p.line = line
	return p
}

func (p *farPair) end(t testing.TB, address string, seed uint64) *farEnd {
	e := &farEnd{pair: p, wq: new(waiter.Queue), rand: rand.New(rand.NewPCG(seed, 0))}
	prefix := netip.MustParsePrefix(address + "/24")
	cfg, err := Config{Addresses: []netip.Prefix{prefix}, clock: p.eventClock}.resolve()
	if err != nil {
		t.Fatal(err)
	}
	ip, err := newIPStack(cfg, []netip.Addr{prefix.Addr()}, e.send)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ip.close)
	e.s = &Stack{ip: ip}
	e.s.tuning.count(e.s, false, p.line.others)
	return e
}

// run lets time pass. After each event it calls each.
func (p *farPair) run(d time.Duration, each func()) {
	for until := p.elapsed() + d; ; {
		do := p.next(until)
		if do == nil {
			return
		}
		do()
		p.a.settle()
		p.b.settle()
		each()
	}
}

// settle waits until the stack is through with what it has received.
func (e *farEnd) settle() {
	e.s.ip.g.Pause()
	e.s.ip.g.Resume()
}

// send puts a packet of the stack on the line.
func (e *farEnd) send(pkt *stack.PacketBuffer) bool {
	var p packet.Packet
	describe(&p, pkt)
	b := bytes.Join(p.Pieces, nil)
	_, head := tcpOf(b)
	size := len(b) - head
	if p.Segment > 0 {
		size = p.Segment
	}
	for at := head; ; at += size {
		end := min(at+size, len(b))
		if arrival, late, ok := e.transmit(head, end-at); ok {
			segment := append(bytes.Clone(b[:head]), b[at:end]...)
			binary.BigEndian.PutUint16(segment[2:], uint16(len(segment)))
			seq := segment[header.IPv4MinimumSize+4:]
			binary.BigEndian.PutUint32(seq, binary.BigEndian.Uint32(seq)+uint32(at-head))
			e.arrive(segment, arrival, late)
		}
		if end == len(b) {
			return true
		}
	}
}

// transmit says when a segment arrives, if it does, and whether that is late.
func (e *farEnd) transmit(head, payload int) (arrival time.Duration, late, ok bool) {
	line, now := &e.pair.line, e.pair.elapsed()
	begin := max(e.free, now)
	ok = line.queue == 0 || begin-now <= line.queue
	if ok {
		e.free = begin + time.Duration(float64(head+payload+farWrapping)*8/line.rate*float64(time.Second))
		ok = (line.loss == 0 || e.rand.Float64() >= line.loss) && (line.drop == nil || !line.drop(e, payload))
	}
	if !ok && payload > 0 {
		e.lost++
	}
	arrival = e.free + line.rtt/2
	if late = ok && line.late != 0 && e.rand.Float64() < line.late; late {
		arrival += max(line.rtt/4, farLeastLate)
	}
	return arrival, late, ok
}

// arrive has the peer take a segment with the first poll after its arrival.
func (e *farEnd) arrive(segment []byte, at time.Duration, late bool) {
	at = (at + farPoll - 1) / farPoll * farPoll
	if e.arriving != nil && e.arriving.at == at {
		e.arriving.add(segment)
		return
	}
	batch := &farBatch{at: at}
	batch.add(segment)
	if !late { // what was sent after it goes on joining
		e.arriving = batch
	}
	e.pair.at(at, func() {
		if e.arriving == batch {
			e.arriving = nil
		}
		for _, b := range batch.packets {
			pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
			pkt.NetworkProtocolNumber = header.IPv4ProtocolNumber
			e.peer.s.ip.deliver(pkt, false)
			pkt.DecRef()
			e.peer.settle()
		}
	})
}

// add joins a segment to the one before it, as the receiving end of a tunnel does, if it can.
func (batch *farBatch) add(b []byte) {
	if last := len(batch.packets) - 1; last >= 0 && batch.joined[last] < farJoin {
		before := batch.packets[last]
		seq, head := tcpOf(before)
		next, nextHead := tcpOf(b)
		if len(b) > nextHead && len(before) > head && head == nextHead && next == seq+uint32(len(before)-head) {
			before = append(before, b[head:]...)
			binary.BigEndian.PutUint16(before[2:], uint16(len(before)))
			batch.packets[last] = before
			batch.joined[last]++
			return
		}
	}
	batch.packets = append(batch.packets, b)
	batch.joined = append(batch.joined, 1)
}

// tcpOf returns the sequence number of a segment, and the length of its headers.
func tcpOf(b []byte) (seq uint32, head int) {
	t := header.TCP(b[header.IPv4MinimumSize:])
	return t.SequenceNumber(), header.IPv4MinimumSize + int(t.DataOffset())
}

// eventClock is a time that passes from event to event. The stacks' timers are such events.
type eventClock struct {
	mu     sync.Mutex
	now    time.Duration
	serial uint64
	events eventHeap
}

type event struct {
	at     time.Duration
	serial uint64 // events at one time happen in the order in which they were set
	do     func()
	index  int // in the heap; -1: not there
}

var _ tcpip.Clock = (*eventClock)(nil)

func (c *eventClock) elapsed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *eventClock) Now() time.Time { return time.Unix(0, 0).Add(c.elapsed()) }

// NowMonotonic does not begin at zero, which the stack takes for no time at all.
func (c *eventClock) NowMonotonic() tcpip.MonotonicTime {
	return tcpip.MonotonicTime{}.Add(time.Hour + c.elapsed())
}

func (c *eventClock) AfterFunc(d time.Duration, f func()) tcpip.Timer {
	t := &eventTimer{c: c, e: event{do: f, index: -1}}
	t.Reset(d)
	return t
}

func (c *eventClock) at(when time.Duration, do func()) {
	c.set(&event{do: do, index: -1}, func() time.Duration { return when })
}

func (c *eventClock) set(e *event, when func() time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serial++
	e.at, e.serial = max(c.now, when()), c.serial
	if e.index >= 0 {
		heap.Fix(&c.events, e.index)
		return
	}
	heap.Push(&c.events, e)
}

// next takes the first event until then, and makes its time the present. Without one it is nil, and the time is that.
func (c *eventClock) next(until time.Duration) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.events) == 0 || c.events[0].at > until {
		c.now = until
		return nil
	}
	e := heap.Pop(&c.events).(*event)
	c.now = e.at
	return e.do
}

type eventTimer struct {
	c *eventClock
	e event
}

func (t *eventTimer) Reset(d time.Duration) {
	t.c.set(&t.e, func() time.Duration { return t.c.now + d })
}

func (t *eventTimer) Stop() bool {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	if t.e.index < 0 {
		return false
	}
	heap.Remove(&t.c.events, t.e.index)
	return true
}

type eventHeap []*event

func (h eventHeap) Len() int { return len(h) }

func (h eventHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].serial < h[j].serial
}

func (h eventHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *eventHeap) Push(x any) {
	e := x.(*event)
	e.index = len(*h)
	*h = append(*h, e)
}

func (h *eventHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	e.index = -1
	*h = (*h)[:last]
	return e
}
