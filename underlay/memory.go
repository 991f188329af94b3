package underlay

import (
	"container/heap"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Memory is a network in memory whose nodes are carriers. What its links do to datagrams can be
// set while it runs. Chance comes from a seed, one source a link, so what one link does depends only
// on the order of what is sent on it: under testing/synctest, a test runs alike every time.
type Memory struct {
	cfg MemoryConfig
	tap atomic.Pointer[Tap]

	mu       sync.Mutex // guards all below, and the nodes
	observer Observer
	nodes    map[netip.AddrPort]*Node
	standard Link // between addresses that have no entry in links
	links    map[direction]*link
	stats    MemoryStats
	flight   flight
}

// MemoryConfig sets up a Memory. The zero value is a network that loses nothing.
type MemoryConfig struct {
	Seed uint64

	// Link is what every link is until SetLink says otherwise.
	Link Link

	// Queue is how many bytes a node holds for a reader that is late, 4 MB when zero. Datagrams
	// beyond are dropped.
	Queue int

	// Coalesce hands adjacent datagrams of one size and source to the reader as one message, as
	// UDP_GRO would. Without it every message is one datagram.
	Coalesce bool
}

// A Tap sees each datagram that is sent, and returns what to carry in its place; nil drops it. The
// datagram is the tap's to change and keep. It is called by the sending goroutines and may
// call the network's methods.
type Tap func(from, to netip.AddrPort, datagram []byte) []byte

// MemoryStats counts what became of the datagrams sent. What a node could not hold is in the
// node's own Stats.
type MemoryStats struct {
	Sent      uint64
	Delivered uint64 // copies of a doubled datagram count as well

	Tapped  uint64 // dropped by the tap
	Down    uint64 // dropped, the link was down, or one of the nodes unplugged
	Lost    uint64 // dropped by Link.Loss or Link.Burst
	TooLong uint64 // dropped, longer than Link.MTU
	Nobody  uint64 // dropped, no node at the address when they arrived
	Crowded uint64 // dropped, too much was on its way already

	Duplicated uint64
	Corrupted  uint64
	Reordered  uint64
}

const defaultMemoryQueue = 4 << 20

// NewMemory returns a network without nodes. It needs no closing: when its last node is closed,
// nothing of it runs any more.
func NewMemory(cfg MemoryConfig) *Memory {
	if cfg.Queue <= 0 {
		cfg.Queue = defaultMemoryQueue
	}
	m := &Memory{
		cfg:      cfg,
		nodes:    make(map[netip.AddrPort]*Node),
		standard: cfg.Link,
		links:    make(map[direction]*link),
	}
	m.flight.landed.L = &m.mu
	return m
}

// Attach adds a node at addr. It fails if there is one already.
func (m *Memory) Attach(addr netip.AddrPort) (*Node, error) {
	addr = unmapped(addr)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.free(addr); err != nil {
		return nil, fmt.Errorf("underlay: attach: %w", err)
	}
	n := &Node{net: m, local: addr, addr: addr}
	n.arrived.L = &m.mu
	m.nodes[addr] = n
	return n, nil
}

// free reports why addr cannot be given to a node, or nil. Needs mu.
func (m *Memory) free(addr netip.AddrPort) error {
	if !addr.IsValid() {
		return fmt.Errorf("%v is no address", addr)
	}
	if m.nodes[addr] != nil {
		return fmt.Errorf("address %s is in use", addr)
	}
	return nil
}

// SetTap makes t see all datagrams sent from now on; nil takes the tap away.
func (m *Memory) SetTap(t Tap) {
	if t == nil {
		m.tap.Store(nil)
		return
	}
	m.tap.Store(&t)
}

// SetDefault changes all links that were not given to SetLink or Partition.
func (m *Memory) SetDefault(l Link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.standard = l
}

// SetLink changes the link from one address to another, in this direction only. Datagrams already on
// their way are not touched.
func (m *Memory) SetLink(from, to netip.AddrPort, l Link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.link(from, to).own = &l
}

// Partition cuts the links between a and b in both directions, leaving what else they are.
func (m *Memory) Partition(a, b netip.AddrPort) { m.setCut(a, b, true) }

// Heal undoes Partition.
func (m *Memory) Heal(a, b netip.AddrPort) { m.setCut(a, b, false) }

func (m *Memory) setCut(a, b netip.AddrPort, cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.link(a, b).cut = cut
	m.link(b, a).cut = cut
}

// Inject carries a datagram as if the owner of from had sent it, whether there is one or not. The
// tap does not see it.
func (m *Memory) Inject(from, to netip.AddrPort, datagram []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.carry(unmapped(from), unmapped(to), datagram)
}

// Stats returns what became of the datagrams so far.
func (m *Memory) Stats() MemoryStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stats
}

// carry takes one datagram through the link. It does not keep d. Needs mu.
func (m *Memory) carry(from, to netip.AddrPort, d []byte) {
	m.stats.Sent++
	link := m.link(from, to)
	l := link.now(m.standard)
	p := Passage{From: from, To: to, Datagram: d, Sent: time.Now()}
	burst := link.bursts(l.Burst)
	switch n := m.nodes[from]; {
	case link.cut || l.Down || n != nil && n.unplugged:
		m.end(p, FateDown)
		return
	case l.MTU > 0 && len(d) > l.MTU:
		m.end(p, FateTooLong)
		return
	case burst || link.happens(l.Loss):
		m.end(p, FateLost)
		return
	}
	m.dispatch(link, l, p)
	if link.happens(l.Duplicate) {
		m.stats.Duplicated++
		p.Copy = true
		m.dispatch(link, l, p)
	}
}

// dispatch sends one copy on its way, which may be no way at all. Needs mu.
func (m *Memory) dispatch(link *link, l Link, p Passage) {
	if len(p.Datagram) > 0 && link.happens(l.Corrupt) {
		m.stats.Corrupted++
		p.Datagram, p.Corrupt = link.corrupt(p.Datagram), true
	}
	delay := link.delay(l)
	if link.happens(l.Reorder) {
		m.stats.Reordered++
		delay += l.reorderDelay()
	}
	if delay <= 0 {
		m.deliver(p)
		return
	}
	if m.flight.bytes+len(p.Datagram)+itemCost > maxFlight {
		m.end(p, FateCrowded)
		return
	}
	p.Datagram = append([]byte(nil), p.Datagram...)
	m.flight.add(parcel{Passage: p, at: p.Sent.Add(delay)})
	m.schedule()
}

// deliver hands a datagram to whoever is at its address by now. Needs mu.
func (m *Memory) deliver(p Passage) {
	n := m.nodes[p.To]
	switch {
	case n == nil:
		m.end(p, FateNobody)
	case n.unplugged:
		m.end(p, FateDown)
	case n.put(p.From, p.Datagram):
		m.end(p, FateDelivered)
	default:
		m.end(p, FateUnread)
	}
}

// maxFlight bounds what is on its way in the whole network, in bytes.
const maxFlight = 256 << 20

// flight is what is on its way, and the one timer that waits for the earliest. One timer a
// datagram would leave the order of those due at the same time to chance.
type flight struct {
	parcels parcels
	bytes   int // of all parcels, with itemCost
	seq     uint64
	timer   *time.Timer
	due     time.Time // when timer fires, if it is set
	calls   int       // calls of land that were started or are to come
	landed  sync.Cond // calls fell
}

type parcel struct {
	Passage
	at  time.Time
	seq uint64 // orders what is due at the same time
}

type parcels []parcel

func (p parcels) Len() int { return len(p) }
func (p parcels) Less(i, j int) bool {
	if p[i].at.Equal(p[j].at) {
		return p[i].seq < p[j].seq
	}
	return p[i].at.Before(p[j].at)
}
func (p parcels) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *parcels) Push(x any)   { *p = append(*p, x.(parcel)) }
func (p *parcels) Pop() any {
	last := len(*p) - 1
	x := (*p)[last]
	(*p)[last] = parcel{}
	*p = (*p)[:last]
	return x
}

func (f *flight) add(p parcel) {
	p.seq = f.seq
	f.seq++
	f.bytes += len(p.Datagram) + itemCost
	heap.Push(&f.parcels, p)
}

// next takes the earliest parcel if it is due.
func (f *flight) next(now time.Time) (parcel, bool) {
	if len(f.parcels) == 0 || f.parcels[0].at.After(now) {
		return parcel{}, false
	}
	p := heap.Pop(&f.parcels).(parcel)
	f.bytes -= len(p.Datagram) + itemCost
	return p, true
}

// schedule sets the timer for the earliest parcel. Needs mu.
func (m *Memory) schedule() {
	f := &m.flight
	if len(f.parcels) == 0 {
		return
	}
	at := f.parcels[0].at
	if f.timer != nil && !at.Before(f.due) {
		return
	}
	m.unschedule()
	f.due = at
	f.calls++
	f.timer = time.AfterFunc(time.Until(at), m.land)
}

// unschedule stops the timer; a call of land that was started already goes on. Needs mu.
func (m *Memory) unschedule() {
	f := &m.flight
	if f.timer != nil && f.timer.Stop() {
		f.calls--
	}
	f.timer = nil
}

// land delivers all that is due.
func (m *Memory) land() {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := &m.flight
	now := time.Now()
	if f.timer != nil && !f.due.After(now) {
		f.timer = nil // it is the one that called, or the one that calls next
	}
	for p, ok := f.next(now); ok; p, ok = f.next(now) {
		m.deliver(p.Passage)
	}
	m.schedule()
	f.calls--
	f.landed.Broadcast()
}

// detach takes n off the network. With the last node goes what is on its way. Needs mu.
func (m *Memory) detach(n *Node) {
	delete(m.nodes, n.addr)
	if len(m.nodes) > 0 {
		return
	}
	m.flight.parcels, m.flight.bytes = nil, 0
	m.unschedule()
	for m.flight.calls > 0 && len(m.nodes) == 0 {
		m.flight.landed.Wait()
	}
}
