package relay

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// TestWhateverHappensThePromisesHold has a few members and their relay live through random lives: their packets
// are lost, doubled, changed, late and out of order, they restart, move, sleep and are cut off, alone and all at
// once. Throughout,
//
//   - a packet is delivered to whom it was for, and to no process twice, but where chance forged a notice (§9, §19.4);
//   - nothing is delivered that was not sent, or by another than its sender;
//   - no counter is sealed twice under a key (§8);
//
// and when it is over,
//
//   - packets flow between all, both ways, within recoveryBound;
//   - each two have one session, the same at both ends (§18);
//   - and Close leaves nothing that runs.
//
// A seed is a life. ADIT_MODEL_SEED=17 runs that one and prints all of it, with ADIT_MODEL_RUNS=100000 so many from
// there. What happens at one instant is in no order, so a seed shows the same life nearly always, but not quite.
func TestWhateverHappensThePromisesHold(t *testing.T) {
	first, runs := uint64(0), uint64(2000)
	if testing.Short() || raceEnabled {
		runs = 300
	}
	verbose := false
	if s := os.Getenv("ADIT_MODEL_SEED"); s != "" {
		first, runs, verbose = number(t, s), 1, true
	}
	if s := os.Getenv("ADIT_MODEL_RUNS"); s != "" {
		runs, verbose = number(t, s), false
	}
	var longest, sum, datagrams, packets atomic.Int64
	t.Run("lives", func(t *testing.T) {
		for seed := first; seed < first+runs; seed++ {
			t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					m := newModel(t, seed, verbose)
					m.live()
					took := m.recover()
					m.settle()
					for have := longest.Load(); int64(took) > have && !longest.CompareAndSwap(have, int64(took)); have = longest.Load() {
					}
					sum.Add(int64(took))
					datagrams.Add(int64(m.net.Stats().Sent))
					packets.Add(int64(len(m.sent)))
					if verbose {
						t.Logf("recovered after %v\n%s", took, m.trace.last(0))
					}
				})
			})
		}
	})
	t.Logf("%d lives with %d packets in %d datagrams: all reached all %v after the faults at the latest, %v on average",
		runs, packets.Load(), datagrams.Load(), time.Duration(longest.Load()), time.Duration(sum.Load()/int64(max(1, runs))).Round(time.Millisecond))
}

// recoveryBound is how long after the last fault packets flow again between all members, both ways, at the latest.
const recoveryBound = 10 * time.Second

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A model is a lab in which things happen by chance, and what must never happen is looked for.
type model struct {
	*lab
	seed    uint64
	verbose bool
	rand    *rand.Rand
	ledger  *ledger
	trace   *trace

	link    underlay.Link
	serial  int                         // of texts and ports
	sent    map[string]said             // by text
	got     map[*device]map[string]bool // by each process
	at      map[*node]netip.AddrPort    // where it is now
	asleep  map[*node]bool
	cuts    map[[2]netip.AddrPort]bool // partitions
	oneWay  map[[2]netip.AddrPort]bool // links that are down in this direction
	over    int                        // the first text after the faults
	flowing map[[2]*node]bool          // texts since then have arrived
	starts  byte                       // engines made, each with its own chance

	mu   sync.Mutex
	seen []replay // what may be carried again
}

// said is who sent a text, and to whom.
type said struct {
	way    [2]*node
	serial int
}

type replay struct {
	from, to netip.AddrPort
	datagram []byte
}

func newModel(t *testing.T, seed uint64, verbose bool) *model {
	m := &model{
		lab: newLab(t), seed: seed, verbose: verbose, rand: rand.New(rand.NewPCG(seed, 0)), ledger: newLedger(),
		sent: make(map[string]said), at: make(map[*node]netip.AddrPort), got: make(map[*device]map[string]bool), asleep: make(map[*node]bool),
		cuts: make(map[[2]netip.AddrPort]bool), oneWay: make(map[[2]netip.AddrPort]bool), flowing: make(map[[2]*node]bool),
	}
	m.net = underlay.NewMemory(underlay.MemoryConfig{Seed: seed, Coalesce: m.chance(0.5)})
	m.net.SetTap(m.tapped)
	m.trace = watch(m.net, m.ledger)
	m.ledger.called(m.addr, relayName)

	rekey := []time.Duration{0, 0, time.Minute, 20 * time.Second, 10 * time.Second}[m.rand.IntN(5)]
	m.cfg.Engine.RekeyAfter = rekey
	members := []string{"a", "b", "c"}
	if m.chance(0.75) {
		members = members[:2]
	}
	for _, name := range members {
		n := m.plan(name)
		n.rekey = rekey
		m.ledger.called(n.addr, n.name)
	}
	// Each two know of each other what they know of all: the relay; or one knows where the other is; or both do.
	for _, a := range m.nodes {
		for _, b := range m.nodes {
			if a != b && m.chance(0.4) {
				a.direct = append(a.direct, b)
			}
		}
	}
	m.changeLinks()
	m.beginRelay()
	for _, n := range m.nodes {
		m.begin(n)
	}
	return m
}

// tapped sees all that engines send.
func (m *model) tapped(from, to netip.AddrPort, d []byte) []byte {
	switch wire.KindOf(d) {
	case wire.KindInitiation, wire.KindResponse, wire.KindData, wire.KindCircuit:
		m.mu.Lock()
		if len(m.seen) < 64 {
			m.seen = append(m.seen, replay{from, to, d})
		} else {
			m.seen[int(d[len(d)-1])%len(m.seen)] = replay{from, to, d}
		}
		m.mu.Unlock()
	}
	return m.ledger.see(from, to, d)
}

func (m *model) chance(p float64) bool { return m.rand.Float64() < p }

func (m *model) upTo(d time.Duration) time.Duration {
	return time.Duration(m.rand.Int64N(int64(d) + 1))
}

// pair are two different members.
func (m *model) pair() (a, b *node) {
	i, j := m.rand.IntN(len(m.nodes)), m.rand.IntN(len(m.nodes)-1)
	if j >= i {
		j++
	}
	return m.nodes[i], m.nodes[j]
}

func (m *model) fail(format string, args ...any) {
	m.t.Helper()
	lines := 250
	if m.verbose {
		lines = 0
	}
	m.t.Fatalf("seed %d: %s\nagain with ADIT_MODEL_SEED=%d; what happened:\n%s", m.seed, fmt.Sprintf(format, args...), m.seed, m.trace.last(lines))
}

// live is the life, from the start to the last fault.
func (m *model) live() {
	for range 6 + m.rand.IntN(20) {
		m.act()
		switch p := m.rand.Float64(); {
		case p < 0.4: // the next at the same instant
		case p < 0.8:
			time.Sleep(m.upTo(300 * time.Millisecond))
		case p < 0.98:
			time.Sleep(m.upTo(3 * time.Second))
		default:
			time.Sleep(m.upTo(15 * time.Second))
		}
		m.collect()
	}
}

// act lets one thing happen.
func (m *model) act() {
	a, b := m.pair()
	switch p := m.rand.IntN(100); {
	case p < 45:
		for range 1 + m.rand.IntN(4) {
			m.say(a, b)
		}
	case p < 55: // at the same instant
		m.say(a, b)
		m.say(b, a)
	case p < 63:
		m.repeat()
	case p < 70:
		m.changeLinks()
	case p < 76:
		if a.engine == nil {
			m.begin(a)
		} else if m.end(a); m.chance(0.7) {
			m.begin(a)
		}
	case p < 80:
		if m.relay == nil {
			m.beginRelay()
		} else if m.endRelay(); m.chance(0.6) {
			m.beginRelay()
		}
	case p < 85:
		m.move(a)
	case p < 90:
		m.sleep(a, !m.asleep[a])
	default:
		to := m.at[b]
		if m.chance(0.4) {
			to = m.addr
		}
		if m.chance(0.5) {
			m.partition(m.at[a], to)
		} else {
			m.cutOneWay(m.at[a], to)
		}
	}
}

// say has a send a text to b that nobody sent before.
func (m *model) say(a, b *node) {
	if a.engine == nil {
		return
	}
	m.serial++
	text := fmt.Sprintf("%s to %s, %d", a.name, b.name, m.serial)
	m.sent[text] = said{[2]*node{a, b}, m.serial}
	m.trace.note("%s sends %q", a.name, text)
	a.send(b, text)
}

// repeat has the network carry once more what it carried before, as a second way there may. It is no forger: a
// notice is not repeated, nor does anything come from where it did not come from.
func (m *model) repeat() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.seen) > 0 {
		r := m.seen[m.rand.IntN(len(m.seen))]
		m.trace.note("once more, from %s to %s: %s", m.ledger.name(r.from), m.ledger.name(r.to), m.ledger.describe(r.datagram))
		m.net.Inject(r.from, r.to, r.datagram)
	}
}

func (m *model) changeLinks() {
	l := underlay.Link{Delay: m.upTo(60 * time.Millisecond)}
	some := func(p, most float64) float64 {
		if m.chance(p) {
			return m.rand.Float64() * most
		}
		return 0
	}
	l.Loss, l.Duplicate, l.Corrupt, l.Reorder = some(0.5, 0.4), some(0.5, 0.5), some(0.3, 0.1), some(0.3, 0.5)
	if m.chance(0.5) {
		l.Jitter = m.upTo(100 * time.Millisecond)
	}
	l.ReorderDelay = time.Millisecond + m.upTo(2*time.Second)
	if m.chance(0.3) {
		l.Burst = underlay.Burst{Begin: m.rand.Float64() * 0.1, End: 0.1 + m.rand.Float64()*0.5}
	}
	m.setLinks(l)
	m.trace.note("links: %+v", l)
}

func (m *model) setLinks(l underlay.Link) {
	m.link = l
	m.net.SetDefault(l)
	for w := range m.oneWay {
		down := l
		down.Down = true
		m.net.SetLink(w[0], w[1], down)
	}
}

func (m *model) partition(a, b netip.AddrPort) {
	w := [2]netip.AddrPort{a, b}
	if m.cuts[w] = !m.cuts[w]; m.cuts[w] {
		m.net.Partition(a, b)
		m.trace.note("%s and %s are cut off from each other", m.ledger.name(a), m.ledger.name(b))
	} else {
		m.net.Heal(a, b)
		m.trace.note("%s and %s are no longer cut off from each other", m.ledger.name(a), m.ledger.name(b))
	}
}

func (m *model) cutOneWay(a, b netip.AddrPort) {
	if m.chance(0.5) {
		a, b = b, a
	}
	l := m.link
	w := [2]netip.AddrPort{a, b}
	m.oneWay[w] = !m.oneWay[w]
	l.Down = m.oneWay[w]
	m.net.SetLink(a, b, l)
	m.trace.note("the way from %s to %s is down: %v", m.ledger.name(a), m.ledger.name(b), l.Down)
}

// move gives a another address, as its NAT does that has lost its mapping.
func (m *model) move(a *node) {
	if a.engine == nil {
		return
	}
	m.serial++
	addr := netip.AddrPortFrom(a.addr.Addr(), uint16(10000+m.serial))
	if err := a.wire.Rebind(addr); err != nil {
		m.t.Fatal(err)
	}
	m.at[a] = addr
	m.ledger.called(addr, a.name)
	m.trace.note("%s is at %v now", a.name, addr)
}

// sleep takes the network from a, or gives it back. Its timers, were they to stand still, would find on
// waking what these do: that it is late.
func (m *model) sleep(a *node, asleep bool) {
	if a.engine == nil || m.asleep[a] == asleep {
		return
	}
	m.asleep[a] = asleep
	if asleep {
		a.wire.Unplug()
		m.trace.note("%s sleeps", a.name)
	} else {
		a.wire.Plug()
		m.trace.note("%s wakes", a.name)
	}
}

func (m *model) begin(n *node) {
	m.starts++
	n.random = &lockedReader{r: rand.NewChaCha8([32]byte{m.starts, byte(m.seed), byte(m.seed >> 8), byte(m.seed >> 16)})}
	m.at[n] = n.addr
	m.trace.note("%s starts", n.name)
	n.start()
}

func (m *model) end(n *node) {
	m.trace.note("%s stops", n.name)
	n.stop()
	m.collect()
	delete(m.asleep, n)
}

func (m *model) beginRelay() {
	m.starts++
	m.cfg.Engine.Random = &lockedReader{r: rand.NewChaCha8([32]byte{m.starts, byte(m.seed), byte(m.seed >> 8), byte(m.seed >> 16)})}
	m.trace.note("the relay starts")
	m.startRelay()
}

func (m *model) endRelay() {
	m.trace.note("the relay stops")
	m.stopRelay()
}

// collect looks at what was delivered since the last time.
func (m *model) collect() {
	m.t.Helper()
	synctest.Wait()
	for _, n := range m.nodes {
		if n.dev == nil {
			continue
		}
		n.dev.mu.Lock()
		out := n.dev.out
		n.dev.out = nil
		n.dev.mu.Unlock()
		for _, b := range out {
			m.delivered(n, b)
		}
	}
	if v := m.ledger.violation(); v != "" {
		m.fail("%s", v)
	}
}

func (m *model) delivered(n *node, b []byte) {
	m.t.Helper()
	h, err := packet.Parse(b)
	if err != nil {
		m.fail("%s was given no packet: %v", n.name, err)
	}
	if h.Proto != packet.ProtoUDP {
		return // our own engine's word that something was not delivered
	}
	text := string(b[h.Transport+packet.UDPHeaderLen:])
	m.trace.note("%s receives %q", n.name, text)
	s, was := m.sent[text]
	way := s.way
	switch {
	case !was:
		m.fail("%s received %q, which nobody sent", n.name, text)
	case way[1] != n || h.Dst != n.ip:
		m.fail("%s received %q", n.name, text)
	case h.Src != way[0].ip:
		m.fail("%s received %q from %v", n.name, text, h.Src)
	case m.got[n.dev][text] && !m.ledger.hasForger(n.name):
		m.fail("%s received %q twice", n.name, text)
	}
	if m.got[n.dev] == nil {
		m.got[n.dev] = make(map[string]bool)
	}
	m.got[n.dev][text] = true
	if m.over > 0 && s.serial >= m.over {
		m.flowing[way] = true
	}
}

// recover ends all faults, and returns after how long packets flow between all.
func (m *model) recover() time.Duration {
	m.t.Helper()
	for w := range m.cuts {
		m.net.Heal(w[0], w[1])
	}
	clear(m.cuts)
	m.setLinks(underlay.Link{Delay: 10 * time.Millisecond})
	for w := range m.oneWay {
		m.net.SetLink(w[0], w[1], m.link)
	}
	clear(m.oneWay)
	for _, n := range m.nodes {
		m.sleep(n, false)
		if n.engine == nil {
			m.begin(n)
		}
	}
	if m.relay == nil {
		m.beginRelay()
	}
	m.trace.note("the faults are over")
	m.collect()
	m.over = m.serial + 1
	for begin := time.Now(); ; {
		missing := 0
		for _, a := range m.nodes {
			for _, b := range m.nodes {
				if a != b && !m.flowing[[2]*node{a, b}] {
					missing++
					m.say(a, b)
				}
			}
		}
		took := time.Since(begin)
		if missing == 0 {
			return took
		}
		if took > recoveryBound {
			m.fail("%d of %d ways carry nothing %v after the faults are over (texts from %d on)", missing, len(m.nodes)*(len(m.nodes)-1), took, m.over)
		}
		time.Sleep(50 * time.Millisecond)
		m.collect()
	}
}

// settle looks whether each two have one session when nothing is under way any more.
func (m *model) settle() {
	m.t.Helper()
	time.Sleep(3 * time.Second)
	for i, a := range m.nodes {
		for _, b := range m.nodes[i+1:] {
			for try := 0; ; try++ {
				m.ledger.forget()
				for range 2 {
					m.say(a, b)
					time.Sleep(100 * time.Millisecond)
					m.say(b, a)
					time.Sleep(100 * time.Millisecond)
				}
				m.collect()
				why := m.ledger.agree(a.name, b.name)
				if why == "" {
					break
				}
				// New keys may be due at this moment.
				if try > 3 || time.Since(m.ledger.lastHandshake(a.name, b.name)) > time.Second {
					m.fail("%s", why)
				}
				time.Sleep(2 * time.Second)
			}
		}
	}
}
