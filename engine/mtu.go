package engine

import (
	"errors"
	"io"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// pathMTU knows how long a datagram may be on the path in use so that nobody fragments it. It finds out by
// probes (§21): padded to a length, sent so that they arrive whole or not at all, and answered. ICMP is not
// needed, and not believed.
//
// A search sends probes of several lengths in rounds until the longest is answered or all have been tried often
// enough. There are three occasions. A path that is new is measured; until then it is assumed to carry what
// a packet of the default overlay MTU needs. While it is used, the length found is confirmed now and then, and when the remote falls
// silent; if it no longer passes, shorter ones are tried. And ever so often longer ones are.
type pathMTU struct {
	// Snapshots for the way of packets, written under the remote's mu.
	fits  atomic.Int32 // the longest packet that goes whole, as far as is known; 0: nothing is known
	found atomic.Bool  // fits is measured, not assumed

	told atomic.Int64 // when a sender was last told of a packet that was too long, as liveness stamps it

	// Under the remote's mu. Lengths are of datagrams, with everything that is ours, without IP and UDP headers.
	path path
	want int // the longest the device can make use of; 0: nothing is measured here
	size int // the longest that passes, assumed or found

	fresh   bool // path has not been searched yet
	search  search
	began   time.Time // the last search
	ended   time.Time // the last search
	confirm time.Time // when size is to be confirmed
	ascend  time.Time // when longer ones are to be tried again
	wait    time.Duration
}

// A search is the probes of one occasion. A reply that comes after its end still counts, until the next search.
type search struct {
	on    bool
	rungs []rung // from the shortest
	alone int    // rounds in which only the first rungs are tried
	round int    // rounds begun
	last  int    // rounds in all
	due   time.Time
	best  int  // the longest length known to pass
	up    bool // only what is longer than from is tried
	from  int  // pathMTU.size when it began
}

// A rung is one length that is tried.
type rung struct {
	size    int
	token   wire.Token
	first   bool // tried in the rounds alone as well
	passed  bool
	refused bool // the first hop does not carry it
}

// probeLadder are the lengths of IP packets that are tried: the least of IPv4 and IPv6; what the usual tunnels leave of 1500; FDDI; jumbo
// frames; virtual networks. The longest tried is what the device can use.
var probeLadder = [...]int{
	576, 1024, 1280, 1360, 1400, 1420, 1452, 1472, 1480, 1492, 1500, 4352, 8192, 9000, 16384, 32768,
}

const (
	udpOverIPv4 = 20 + 8
	udpOverIPv6 = 40 + 8

	// baseDatagram is assumed to pass until a path is measured: the default overlay MTU with a circuit.
	baseDatagram = 1400 + wire.DataOverhead + wire.CircuitOverhead

	probeTries   = 3                // of each length in one search
	searchEvery  = time.Second      // at most, also if the path changes to and fro
	confirmEvery = 10 * time.Second // while packets flow
	doubtEvery   = 5 * time.Second  // at most, when the remote is silent or nothing is answered
	ascendFirst  = time.Minute      // then at ever longer intervals
	ascendEvery  = 10 * time.Minute

	// A round of probes takes a few round trips, as far as one was measured.
	leastRound, usualRound, mostRound = 200 * time.Millisecond, 500 * time.Millisecond, time.Second
)

// bound is the longest packet that the path carries whole.
func (m *pathMTU) bound() int {
	if n := m.fits.Load(); n > 0 {
		return int(n)
	}
	return math.MaxInt
}

// publish is called with the remote's mu held.
func (m *pathMTU) publish(found bool) {
	m.fits.Store(int32(m.size - m.path.prefixLen() - wire.DataOverhead))
	m.found.Store(found)
}

// enter begins anew with path p.
func (m *pathMTU) enter(p path, deviceMTU int) {
	if m.path == p || deviceMTU == 0 {
		return
	}
	m.path = p
	m.want = min(deviceMTU+wire.DataOverhead+p.prefixLen(), underlay.MaxMessage)
	m.size = min(baseDatagram, m.want)
	m.fresh, m.search = true, search{}
	m.publish(false)
}

// doubt has the length in use confirmed soon: nothing comes back of what was sent.
func (m *pathMTU) doubt(now time.Time) {
	if !m.fresh && now.Sub(m.ended) >= doubtEvery {
		m.confirm = now
	}
}

// measured returns the session by which the path is measured, nil if it is not. A relay that is no peer is sent no packets.
func (r *Remote) measured() *session {
	s, p := r.current.Load(), r.path.Load()
	if s == nil || p == nil || *p != r.mtu.path || r.mtu.want == 0 || r.relay && len(r.allow) == 0 || !s.confirmed.Load() {
		return nil
	}
	return s
}

// advanceMTU is called with mu held.
func (r *Remote) advanceMTU(now time.Time) {
	m := &r.mtu
	s := r.measured()
	if s == nil {
		return
	}
	if !m.search.on && !r.beginSearch(now) {
		return
	}
	if q := &m.search; !now.Before(q.due) {
		r.advanceSearch(s, now)
	}
}

func (r *Remote) mtuDeadline() time.Time {
	m := &r.mtu
	switch {
	case r.measured() == nil:
	case m.search.on:
		return m.search.due
	case m.fresh:
		return m.began.Add(searchEvery)
	}
	return time.Time{} // while packets flow the timer comes often enough
}

// beginSearch begins one if there is occasion for it.
func (r *Remote) beginSearch(now time.Time) bool {
	m := &r.mtu
	used := r.life.awake.Load()
	q := search{on: true, last: probeTries, due: now, from: m.size}
	confirm := used && !now.Before(m.confirm)
	switch {
	case m.fresh && now.Before(m.began.Add(searchEvery)):
		return false
	case m.fresh || confirm && !m.found.Load():
		q.alone = 1
		q.rungs = m.rungs(0, m.want, m.size, m.want)
	case confirm:
		q.alone = probeTries - 1
		q.rungs = m.rungs(0, m.size, m.size)
	case used && m.found.Load() && m.size < m.want && !now.Before(m.ascend):
		q.up, q.best = true, m.size
		q.rungs = m.rungs(m.size, m.want)
	default:
		return false
	}
	q.last += q.alone
	for i := range q.rungs {
		io.ReadFull(r.engine.cfg.Random, q.rungs[i].token[:])
	}
	m.fresh, m.began, m.search = false, now, q
	return true
}

// rungs returns what there is to try above least, up to most.
func (m *pathMTU) rungs(least, most int, first ...int) []rung {
	headers := udpOverIPv6
	if _, addr, _ := m.path.under(); addr.Addr().Is4() {
		headers = udpOverIPv4
	}
	sizes := []int{most}
	for _, n := range probeLadder {
		if n -= headers; n > least && n < most {
			sizes = append(sizes, n)
		}
	}
	for _, n := range first {
		if n > least && n < most {
			sizes = append(sizes, n)
		}
	}
	slices.Sort(sizes)
	var rungs []rung
	for _, n := range slices.Compact(sizes) {
		rungs = append(rungs, rung{size: n, first: slices.Contains(first, n)})
	}
	return rungs
}

// done reports whether there is nothing longer left to try.
func (q *search) done() bool {
	for i := len(q.rungs) - 1; i >= 0; i-- {
		if g := &q.rungs[i]; !g.refused {
			return g.size <= q.best
		}
	}
	return true
}

// advanceSearch is called when the time of a round is over. It begins the next, or ends the search.
func (r *Remote) advanceSearch(s *session, now time.Time) {
	m := &r.mtu
	q := &m.search
	if q.round > 1 && q.best > 0 && m.size != q.best {
		// What is longer has been tried twice by now. If it passes after all it will be raised again.
		m.size = q.best
		m.publish(m.found.Load())
	}
	for q.round < q.last && !q.done() {
		sent, err := r.sendRound(s, now)
		if errors.Is(err, errors.ErrUnsupported) {
			m.search, m.want = search{}, 0
			m.fits.Store(0)
			return
		}
		q.round++
		if sent {
			q.due = now.Add(r.roundTime())
			return
		}
	}
	r.endSearch(now)
}

// sendRound sends what is to be tried in this round, and reports whether that was anything.
func (r *Remote) sendRound(s *session, now time.Time) (sent bool, err error) {
	m := &r.mtu
	q := &m.search
	for i := range q.rungs {
		g := &q.rungs[i]
		if g.size <= q.best || g.refused || q.round < q.alone && !g.first {
			continue
		}
		switch err := r.probeWhole(s, m.path, g.token, g.size, now); {
		case errors.Is(err, errors.ErrUnsupported):
			return sent, err
		case errors.Is(err, underlay.ErrTooLong):
			g.refused = true
		default:
			sent = true
		}
	}
	return sent, nil
}

// roundTime is how long the replies of a round are waited for.
func (r *Remote) roundTime() time.Duration {
	if rtt := r.life.rtt; rtt > 0 {
		return min(max(4*rtt, leastRound), mostRound)
	}
	return usualRound
}

// endSearch draws the conclusions. If nothing at all was answered that says nothing about lengths.
func (r *Remote) endSearch(now time.Time) {
	m := &r.mtu
	q := &m.search
	q.on, m.ended = false, now
	if q.best == 0 {
		m.confirm = now.Add(doubtEvery)
		return
	}
	m.confirm = now.Add(confirmEvery)
	switch {
	case q.up && q.best == q.from:
		m.wait = min(2*m.wait, ascendEvery)
		m.ascend = now.Add(m.wait)
	case q.best != q.from || !m.found.Load():
		m.wait = ascendFirst
		m.ascend = now.Add(m.wait)
	}
	if q.best != m.size || !m.found.Load() {
		m.size = q.best
		m.publish(true)
		r.engine.log.Debug("path MTU", "remote", r.label(), "path", m.path.String(), "mtu", m.fits.Load())
	}
}

// probeAnswered is called with a probe's reply, and mu held.
func (r *Remote) probeAnswered(token wire.Token, now time.Time) {
	m := &r.mtu
	q := &m.search
	i := slices.IndexFunc(q.rungs, func(g rung) bool { return g.token == token })
	if i < 0 || q.rungs[i].passed {
		r.engine.drop(DropUnexpected)
		return
	}
	q.rungs[i].passed = true
	q.best = max(q.best, q.rungs[i].size)
	if q.best > m.size {
		m.size = q.best
		m.publish(m.found.Load())
	}
	if q.on && q.done() {
		r.endSearch(now)
	}
}

// probeWhole sends a probe that makes a datagram of size bytes and must not be fragmented.
func (r *Remote) probeWhole(s *session, p path, token wire.Token, size int, now time.Time) error {
	c, addr, ok := p.under()
	if !ok {
		return errNoPath
	}
	prefix := p.prefixLen()
	padding := size - prefix - wire.DataOverhead - wire.ProbeLen
	inner, err := wire.Probe{Token: token, Padding: padding}.Append(nil)
	if err != nil {
		return err
	}
	counter, err := s.sealer.Reserve(1)
	if err != nil {
		return err
	}
	b := make([]byte, size)
	if p.relay != nil {
		wire.PutCircuit(b, p.circuit)
		wire.SetWhole(b)
	}
	slot := b[prefix:]
	copy(slot[wire.HeaderLen:], inner)
	s.sealer.Seal(slot, counter, 0, new(wire.Nonce))
	r.noteSent(now, quiet)
	return c.Probe(underlay.Message{Buf: b, Seg: size, Addr: addr})
}

// tooLong is told of a packet p that does not fit limit, the path's bound. If it can be cut, as TCP can, it is; anything else
// travels in fragments. Its sender is told, now and then, once the path is measured.
func (r *Remote) tooLong(cut *packet.Cutter, p *packet.Packet, limit int, now time.Time) {
	if cut.Bound(p, limit) && limit < packet.MinMTUIPv6 && p.Pieces[0][0]>>4 == 6 {
		return // no sender of IPv6 has to do with less
	}
	m := &r.mtu
	t := r.life.stamp(now)
	if told := m.told.Load(); !m.found.Load() || told != 0 && t-told < int64(tellEvery) || !m.told.CompareAndSwap(told, t) {
		return
	}
	r.engine.refuseLength(p, limit)
}

// tellEvery is how often those who send to a remote are told of packets that are too long.
const tellEvery = 100 * time.Millisecond

// clampMSS has both ends of a TCP connection that begins send what the path carries whole. Each of the two peers between them does
// so for what it knows. It is worth calling for packets of up to packet.MaxSYN bytes.
func (r *Remote) clampMSS(pkt []byte, partial bool) {
	if m := &r.mtu; m.found.Load() {
		packet.ClampMSS(pkt, m.bound(), partial)
	}
}
