package relay

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// A trace is what happened on a network, to be read by whoever looks for the reason of a failure:
//
//	12.340  a     -> relay  circuit 3f52.. | data for b/5d0a1c22 #17, 95 B    delivered after 10ms
//	12.350  -- b restarts
//	12.350  relay -> b      circuit 81aa.. | data for b/5d0a1c22 #17, 95 B    nobody there
//
// An index is shown with its owner, the end that made it and receives by it.
type trace struct {
	begin  time.Time
	ledger *ledger // knows names

	mu    sync.Mutex
	lines []traceLine
}

type traceLine struct {
	at     time.Time
	note   string // or a passage, which is put in words when it is to be read
	pass   underlay.Passage
	fate   underlay.Fate
	landed time.Time
}

// watch begins a trace of the network.
func watch(net *underlay.Memory, l *ledger) *trace {
	tr := &trace{begin: time.Now(), ledger: l}
	net.SetObserver(func(p underlay.Passage, f underlay.Fate) {
		p.Datagram = bytes.Clone(p.Datagram)
		if p.Corrupt && f == underlay.FateDelivered {
			l.corrupted(p.Datagram)
		}
		tr.add(traceLine{at: p.Sent, pass: p, fate: f, landed: time.Now()})
	})
	return tr
}

func (tr *trace) add(l traceLine) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.lines = append(tr.lines, l)
}

func (tr *trace) note(format string, args ...any) {
	tr.add(traceLine{at: time.Now(), note: fmt.Sprintf(format, args...)})
}

// last returns the end of the trace, in the order in which things were sent; all of it if n is 0.
func (tr *trace) last(n int) string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	lines := slices.Clone(tr.lines)
	slices.SortStableFunc(lines, func(a, b traceLine) int { return a.at.Compare(b.at) })
	var b strings.Builder
	if n > 0 && len(lines) > n {
		fmt.Fprintf(&b, "(%d lines before)\n", len(lines)-n)
		lines = lines[len(lines)-n:]
	}
	for _, l := range lines {
		fmt.Fprintf(&b, "%8.3f  ", l.at.Sub(tr.begin).Seconds())
		if l.note != "" {
			fmt.Fprintf(&b, "-- %s\n", l.note)
			continue
		}
		fmt.Fprintf(&b, "%-5s -> %-5s  %-62s  %s", tr.ledger.name(l.pass.From), tr.ledger.name(l.pass.To), tr.ledger.describe(l.pass.Datagram), l.fate)
		if took := l.landed.Sub(l.at); took > 0 {
			fmt.Fprintf(&b, " after %v", took.Round(time.Microsecond))
		}
		if l.pass.Copy {
			b.WriteString(", a copy")
		}
		if l.pass.Corrupt {
			b.WriteString(", a bit turned")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// A ledger is what can be known from the wire alone: whose an index is, which two were agreed on together, and
// what was sealed under them. It sees what engines send, before anything happens to it.
type ledger struct {
	mu    sync.Mutex
	names map[netip.AddrPort]string
	owner map[wire.Index]string
	pairs map[wire.Index]wire.Index // of one handshake, both ways
	shook map[[2]string]time.Time   // when two last exchanged a handshake message, by names in order
	used  map[[2]string]map[wire.Index]bool
	seals map[seal][]byte
	wrong string // the first thing that must not be

	forged map[string]bool // in whose name a turned bit made a notice
}

// A seal names a nonce: the key, which is that of one index and direction, and the counter.
type seal struct {
	from  string
	index wire.Index
	count uint64
}

func newLedger() *ledger {
	return &ledger{
		names: make(map[netip.AddrPort]string), owner: make(map[wire.Index]string), pairs: make(map[wire.Index]wire.Index),
		shook: make(map[[2]string]time.Time), used: make(map[[2]string]map[wire.Index]bool), seals: make(map[seal][]byte), forged: make(map[string]bool),
	}
}

// called says who is at an address; it stays so.
func (l *ledger) called(addr netip.AddrPort, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names[addr] = name
}

func (l *ledger) name(addr netip.AddrPort) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.names[addr]; n != "" {
		return n
	}
	return addr.String()
}

// see is the network's tap.
func (l *ledger) see(from, _ netip.AddrPort, d []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := l.names[from]
	b := d
	if _, inner, ok := wire.ParseCircuit(d); ok {
		if name == relayName {
			return d // was seen when its member sent it
		}
		b = inner
	}
	switch wire.KindOf(b) {
	case wire.KindInitiation:
		l.owner[sender(b)] = name
	case wire.KindResponse:
		mine, theirs := sender(b), receiver(b)
		l.owner[mine] = name
		l.pairs[mine], l.pairs[theirs] = theirs, mine
		l.shook[inOrder(name, l.owner[theirs])] = time.Now()
	case wire.KindData:
		h, _ := wire.ParseData(b)
		way := [2]string{name, l.owner[h.Receiver]}
		if l.used[way] == nil {
			l.used[way] = make(map[wire.Index]bool)
		}
		l.used[way][h.Receiver] = true
		s := seal{name, h.Receiver, h.Counter}
		if before, twice := l.seals[s]; twice && l.wrong == "" {
			l.wrong = fmt.Sprintf("%s sealed twice for %s under #%d: %x.. and %x..", name, l.index(h.Receiver), h.Counter, before, b[wire.HeaderLen:][:16])
		}
		l.seals[s] = bytes.Clone(b[wire.HeaderLen:][:16])
	}
	return d
}

// corrupted is told of what arrived with a bit turned. A notice can say by that what a forger would have it say: it is not
// authenticated, and what is left of it may be an index in use.
func (l *ledger) corrupted(d []byte) {
	if _, inner, ok := wire.ParseCircuit(d); ok {
		d = inner
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i, ok := wire.ParseNotice(d); ok && l.owner[i] != "" {
		l.forged[l.owner[i]] = true
	}
}

// hasForger reports whether a notice was forged in somebody's name.
func (l *ledger) hasForger(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.forged[name]
}

const relayName = "relay"

func sender(b []byte) wire.Index { return index(b[4:]) }
func receiver(b []byte) wire.Index {
	i, _ := wire.ReceiverOf(b)
	return i
}
func index(b []byte) wire.Index {
	return wire.Index(b[0])<<24 | wire.Index(b[1])<<16 | wire.Index(b[2])<<8 | wire.Index(b[3])
}

func inOrder(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

// forget begins a new count of what is used.
func (l *ledger) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.used)
}

// agree reports why two do not seal by one session, each by its half, as far as was seen since forget; or nothing.
func (l *ledger) agree(a, b string) (why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	there, back := l.used[[2]string{a, b}], l.used[[2]string{b, a}]
	if len(there) != 1 || len(back) != 1 {
		return fmt.Sprintf("%s and %s use %d and %d sessions", a, b, len(there), len(back))
	}
	for x := range there {
		for y := range back {
			if l.pairs[x] != y || l.pairs[y] != x {
				return fmt.Sprintf("%s seals for %s, %s for %s: not one session", a, l.index(x), b, l.index(y))
			}
		}
	}
	return ""
}

// lastHandshake is when two last answered one another.
func (l *ledger) lastHandshake(a, b string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shook[inOrder(a, b)]
}

// violation is the first thing seen that must not be, or nothing.
func (l *ledger) violation() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wrong
}

// index names an index for people. It is called with mu held.
func (l *ledger) index(i wire.Index) string {
	owner := l.owner[i]
	if owner == "" {
		owner = "?"
	}
	return fmt.Sprintf("%s/%08x", owner, uint32(i))
}

// describe puts a datagram in words.
func (l *ledger) describe(d []byte) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var prefix string
	if id, inner, ok := wire.ParseCircuit(d); ok {
		prefix, d = fmt.Sprintf("circuit %.4s.. | ", id), inner
	}
	what := wire.KindOf(d).String()
	switch wire.KindOf(d) {
	case wire.KindInitiation:
		what += " by " + l.index(sender(d))
	case wire.KindResponse:
		what += fmt.Sprintf(" by %s to %s", l.index(sender(d)), l.index(receiver(d)))
	case wire.KindCookieReply:
		what += " to " + l.index(receiver(d))
	case wire.KindData:
		h, _ := wire.ParseData(d)
		what += fmt.Sprintf(" for %s #%d, %d B", l.index(h.Receiver), h.Counter, len(d)-wire.DataOverhead)
	case wire.KindNotice:
		i, _ := wire.ParseNotice(d)
		what += " of " + l.index(i)
	case wire.KindCircuitNotice:
		code, id, _ := wire.ParseCircuitNotice(d)
		what += fmt.Sprintf(" %v of %.4s..", code, id)
	}
	return prefix + what
}
