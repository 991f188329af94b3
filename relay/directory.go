package relay

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/gaissmai/bart"
	"golang.org/x/time/rate"

	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/wire"
)

// A directory answers who owns an overlay address, a key or a name. It does not change once the relay
// runs, so that it is read without a lock.
type directory struct {
	byKey     map[wire.PublicKey]*member
	byName    map[string]*member
	byAddress bart.Table[*member]
}

// A member is a Member and what the relay knows of it.
type member struct {
	Member
	remote *engine.Remote // nil for the relay itself

	questions *rate.Limiter // what it may ask
	bytes     *rate.Limiter // what it may send; nil: as much as it likes

	circuits map[*member]*circuit // by the member at the other end; under the relay's mu
}

// A member may ask so many questions a second, and so many at once: enough to reach everybody it has
// a circuit for after a restart.
const (
	questionsPerSecond = 100
	questionsAtOnce    = 1000
)

func newMember(m Member, remote *engine.Remote, limits Limits) *member {
	n := &member{Member: m, remote: remote, circuits: make(map[*member]*circuit)}
	n.questions = rate.NewLimiter(questionsPerSecond, questionsAtOnce)
	if limits.BytesPerSecond > 0 {
		// At least a message at once, or the largest would never pass.
		n.bytes = rate.NewLimiter(rate.Limit(limits.BytesPerSecond), max(limits.BytesPerSecond, 1<<17))
	}
	return n
}

// within returns how many of n bytes the member may send now: all, as many whole datagrams of seg
// bytes as its limit leaves, or none.
func (m *member) within(n, seg int, now time.Time) int {
	if m.bytes == nil || m.bytes.AllowN(now, n) {
		return n
	}
	n = min(n, int(max(0, m.bytes.TokensAt(now)))) / seg * seg
	if n > 0 && !m.bytes.AllowN(now, n) {
		return 0 // another carrier took them
	}
	return n
}

func (d *directory) init() {
	d.byKey = make(map[wire.PublicKey]*member)
	d.byName = make(map[string]*member)
}

// add refuses what could not be told to anybody (§14), or would be said of two.
func (d *directory) add(m *member) error {
	d.byKey[m.PublicKey] = m
	if n := len(m.AllowedIPs); n > wire.MaxPrefixes {
		return fmt.Errorf("%d prefixes; at most %d", n, wire.MaxPrefixes)
	}
	if m.Name != "" {
		if err := wire.CheckName(m.Name); err != nil {
			return err
		}
		if have := d.byName[m.Name]; have != nil {
			return fmt.Errorf("the name is also that of %v", have.PublicKey)
		}
		d.byName[m.Name] = m
	}
	for _, p := range m.AllowedIPs {
		if have, taken := d.byAddress.Get(p); taken {
			return fmt.Errorf("%v is also that of %q", p, have.Name)
		}
		d.byAddress.Insert(p, m)
	}
	return nil
}

func (d *directory) find(q wire.Lookup) *member {
	switch q.By {
	case wire.ByAddress:
		m, _ := d.byAddress.Lookup(q.Address)
		return m
	case wire.ByKey:
		return d.byKey[q.Key]
	case wire.ByName:
		return d.byName[q.Name]
	}
	return nil
}

// label names the member for people.
func (m *member) label() string {
	if m.Name != "" {
		return m.Name
	}
	return m.PublicKey.String()
}

// record is what the directory tells of m.
func (m *member) record() wire.Member {
	r := wire.Member{Key: m.PublicKey, Name: m.Name, Prefixes: m.AllowedIPs}
	if m.remote == nil {
		r.Online = true
		return r
	}
	var addr netip.AddrPort
	_, addr, r.Online = m.remote.Address()
	r.Observed = addr
	return r
}

// serve answers members (§13). It is the engine's Serve.
func (r *Relay) serve(from *engine.Remote, question wire.Control) wire.Control {
	asker := r.directory.byKey[from.PublicKey()]
	if asker == nil {
		return nil
	}
	allowed := asker.questions.AllowN(time.Now(), 1)
	switch q := question.(type) {
	case wire.Lookup:
		if !allowed {
			r.counters.drops[dropQuestionLimit].Add(1)
			return wire.LookupReply{ID: q.ID, Status: wire.LookupTryLater}
		}
		m := r.directory.find(q)
		if m == nil {
			return wire.LookupReply{ID: q.ID, Status: wire.LookupNotFound}
		}
		return wire.LookupReply{ID: q.ID, Status: wire.LookupFound, Member: m.record()}
	case wire.OpenCircuit:
		if !allowed {
			r.counters.drops[dropQuestionLimit].Add(1)
			return wire.OpenCircuitReply{ID: q.ID, Status: wire.CircuitLimit}
		}
		id, status := r.open(asker, r.directory.byKey[q.Remote])
		return wire.OpenCircuitReply{ID: q.ID, Status: status, Circuit: id}
	case wire.CloseCircuit:
		r.closeCircuit(asker, q.Circuit)
	}
	return nil
}
