package relay

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/wire"
)

// A play is a relay, members that do what a fuzzer says, and a stranger who does the same.
type play struct {
	t       *testing.T
	l       *lab
	all     []*raw           // the last is the stranger
	at      []netip.AddrPort // where each is
	ids     []wire.CircuitID
	moved   uint16
	sent    int
	session []bool // with the relay, now or before
}

func newPlay(t *testing.T, l *lab, members int) *play {
	p := &play{t: t, l: l}
	l.cfg.Limits.Circuits = members - 2 // one member cannot have one with all
	for i := range members {
		p.all = append(p.all, l.member(fmt.Sprint("m", i)))
	}
	p.all = append(p.all, l.stranger())
	l.start()
	p.session = make([]bool, len(p.all))
	for i := range p.all {
		p.at = append(p.at, p.all[i].addr)
		p.connect(i)
	}
	return p
}

func (p *play) connect(i int) {
	ok := p.all[i].connect()
	if stranger := i == len(p.all)-1; ok && stranger {
		p.t.Fatal("a stranger has a session")
	}
	p.session[i] = p.session[i] || ok
}

// step does what two bytes say.
func (p *play) step(what, how byte) {
	n := len(p.all)
	i := int(how) % n
	m := p.all[i]
	other := p.all[int(how)/n%n]
	id := wire.CircuitID(how) + 1
	if len(p.ids) > 0 {
		id = p.ids[int(how)/n%len(p.ids)]
	}
	control := func(c wire.Control) {
		if p.session[i] {
			m.sendControl(c)
		}
	}
	switch what % 9 {
	case 0:
		p.connect(i)
	case 1, 2:
		m.asked++
		control(wire.OpenCircuit{ID: m.asked, Remote: other.key.Public()})
	case 3:
		control(wire.CloseCircuit{Circuit: id})
	case 4, 5, 6:
		p.carry(i, id)
	case 7:
		p.moved++
		p.at[i] = netip.AddrPortFrom(m.addr.Addr(), 7000+p.moved)
		if err := m.wire.Rebind(p.at[i]); err != nil {
			p.t.Fatal(err)
		}
		if p.session[i] && what&16 != 0 {
			m.keepalive()
		}
	case 8:
		time.Sleep(time.Duration(how) * 4 * time.Second)
	}
	p.check()
}

// carry has the i-th send by a circuit, that may be its own, another's or nobody's, and sees who receives that.
func (p *play) carry(i int, id wire.CircuitID) {
	r := p.l.relay
	var to *raw
	var as wire.CircuitID
	synctest.Wait()
	if e := r.circuits.lookup(id); e != nil && e.member.PublicKey == p.all[i].key.Public() && e.member.online() && e.other.member.online() {
		_, known, _ := e.member.remote.Address()
		_, there, _ := e.other.member.remote.Address()
		for j, m := range p.all {
			if m.key.Public() == e.other.member.PublicKey && p.at[i] == known && p.at[j] == there {
				to, as = m, e.other.id
			}
		}
	}
	for _, m := range p.all {
		m.takes(wire.KindCircuit)
	}
	p.sent++
	text := fmt.Sprint("text ", p.sent)
	p.all[i].send(circuitData(id, text))
	for _, m := range p.all {
		var want []string
		if m == to {
			want = []string{text}
		}
		var got []string
		for _, b := range m.takes(wire.KindCircuit) {
			at, text := circuitText(b)
			if at != as {
				p.t.Fatalf("%v received by circuit %v, want %v", m.addr, at, as)
			}
			got = append(got, text)
		}
		if !slices.Equal(got, want) {
			p.t.Fatalf("%v received %q, want %q", m.addr, got, want)
		}
	}
}

// check is what holds at all times.
func (p *play) check() {
	synctest.Wait()
	r := p.l.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	r.circuits.mu.RLock()
	defer r.circuits.mu.RUnlock()
	ends := 0
	for _, m := range r.directory.byKey {
		ends += len(m.circuits)
		if len(m.circuits) > r.limits.Circuits {
			p.t.Fatalf("%s has %d circuits, at most %d", m.label(), len(m.circuits), r.limits.Circuits)
		}
		for other, k := range m.circuits {
			if other.circuits[m] != k || k.endOf(m).member != m || k.endOf(m).other.member != other {
				p.t.Fatalf("the circuit of %s and %s is not one", m.label(), other.label())
			}
		}
	}
	if ends != len(r.circuits.byID) {
		p.t.Fatalf("%d ends of circuits at members, %d by id", ends, len(r.circuits.byID))
	}
	for id, e := range r.circuits.byID {
		if id == 0 || e.id != id || e.other.other != e || e.other.id == id || e.member.circuits[e.other.member] != e.circuit {
			p.t.Fatalf("circuit %v does not hang together", id)
		}
		if !slices.Contains(p.ids, id) {
			p.ids = append(p.ids, id)
		}
	}
	slices.Sort(p.ids) // the order of a map is chance
}

// FuzzCircuits takes its input for what members, and a stranger, do at a relay: circuits opened and closed by their owners and by
// others, data by them, new addresses, new sessions, time. What must hold always, holds after each step, and in the end
// nothing is left.
func FuzzCircuits(f *testing.F) {
	f.Add([]byte("\x01\x05\x04\x00\x04\x05\x04\x01\x04\x06"))         // a circuit, and who may use it
	f.Add([]byte("\x01\x05\x03\x02\x03\x00\x04\x00\x01\x05"))         // closed by another, closed
	f.Add([]byte("\x01\x05\x07\x00\x04\x00\x17\x00\x04\x00"))         // moved, and shown
	f.Add([]byte("\x01\x05\x08\xff\x04\x00\x00\x00\x00\x01\x04\x00")) // grown old
	f.Add([]byte("\x01\x05\x01\x0a\x01\x0f\x01\x06\x01\x0b\x02\x0d")) // more than the limit
	const steps = 24
	f.Fuzz(func(t *testing.T, script []byte) {
		inFakeTime(t, func(t *testing.T, l *lab) {
			p := newPlay(t, l, 4)
			before := entries(l.relay)
			p.check()
			for i := 0; i+1 < len(script) && i < 2*steps; i += 2 {
				p.step(script[i], script[i+1])
			}
			advance(wire.RejectAfter + wire.KeepPrevious + sweepEvery)
			wantNoGrowth(t, l.relay, before)
			if n := l.circuits() + members(l.relay); n != 0 {
				t.Fatalf("%d entries of circuits are left", n)
			}
		})
	})
}
