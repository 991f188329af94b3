package relay

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/adit-overlay/adit/wire"
)

// A circuit joins two members. Each has an id of its own for it, which it puts before what it sends;
// what it receives carries that same id, for the relay swaps them (§11).
type circuit struct {
	ends [2]end

	used atomic.Int64 // when something was last forwarded by it, in seconds since Relay.epoch
}

// An end is a circuit as one member has it. All but the limiter's inside stays as it was made.
type end struct {
	circuit *circuit
	id      wire.CircuitID
	member  *member
	other   *end

	challenges *rate.Limiter // what the relay says to those who know the id and come from elsewhere
	probes     *rate.Limiter // datagrams of this end that must not be fragmented, which cost more than others
}

// circuits finds an end by its id. Forwarders read it for every run of datagrams.
type circuits struct {
	mu   sync.RWMutex
	byID map[wire.CircuitID]*end
}

func (c *circuits) init() { c.byID = make(map[wire.CircuitID]*end) }

func (c *circuits) lookup(id wire.CircuitID) *end {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byID[id]
}

// add gives both ends a random id that no other circuit has.
func (c *circuits) add(k *circuit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range k.ends {
		e := &k.ends[i]
		for e.id == 0 || c.byID[e.id] != nil {
			var b [8]byte
			rand.Read(b[:])
			e.id = wire.CircuitID(binary.BigEndian.Uint64(b[:]))
		}
		c.byID[e.id] = e
	}
}

func (c *circuits) remove(k *circuit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range k.ends {
		delete(c.byID, k.ends[i].id)
	}
}

// open returns the id, at a's end, of the circuit between a and b. There is one for each two members,
// however often and from whichever side it is asked for; so a member that restarts, and asks again, changes nothing
// for the other.
func (r *Relay) open(a, b *member) (wire.CircuitID, wire.CircuitStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case b == nil || b == a || b.remote == nil || a.remote == nil:
		return 0, wire.CircuitNoMember
	case !b.online():
		return 0, wire.CircuitOffline
	}
	k := a.circuits[b]
	if k == nil {
		if max(len(a.circuits), len(b.circuits)) >= r.limits.Circuits {
			r.counters.drops[dropCircuitLimit].Add(1)
			r.log.Debug("too many circuits", "by", a.label(), "to", b.label(), "limit", r.limits.Circuits)
			return 0, wire.CircuitLimit
		}
		k = new(circuit)
		for i, m := range []*member{a, b} {
			e := &k.ends[i]
			e.circuit, e.member, e.other = k, m, &k.ends[1-i]
			e.challenges = rate.NewLimiter(rate.Every(challengeEvery), 1)
			e.probes = rate.NewLimiter(probesPerSecond, probesPerSecond)
		}
		k.touch(r.seconds(time.Now()))
		r.circuits.add(k)
		a.circuits[b], b.circuits[a] = k, k
		r.log.Debug("circuit opened", "by", a.label(), "to", b.label())
	}
	mine, theirs := k.endOf(a), k.endOf(b)
	b.remote.Send(wire.CircuitOffered{Circuit: theirs.id, Remote: a.record()})
	return mine.id, wire.CircuitOK
}

// probesPerSecond bounds the datagrams of one end of a circuit that must not be fragmented: enough for a member that measures its path.
const probesPerSecond = 64

// challengeEvery is the least time between two challenges about one end of a circuit.
const challengeEvery = 100 * time.Millisecond

// seconds is the time since the relay was made. No clock that is set changes it.
func (r *Relay) seconds(now time.Time) int64 { return int64(now.Sub(r.epoch) / time.Second) }

// touch notes that the circuit is used. Forwarders call it for every run, so it writes once a second.
func (k *circuit) touch(seconds int64) {
	if k.used.Load() != seconds {
		k.used.Store(seconds)
	}
}

func (k *circuit) endOf(m *member) *end {
	if k.ends[0].member == m {
		return &k.ends[0]
	}
	return &k.ends[1]
}

func (m *member) online() bool {
	_, _, ok := m.remote.Address()
	return ok
}

// drop ends a circuit and tells those of its ends that are still there. It is called with r.mu held.
func (r *Relay) drop(k *circuit) {
	a, b := &k.ends[0], &k.ends[1]
	r.circuits.remove(k)
	delete(a.member.circuits, b.member)
	delete(b.member.circuits, a.member)
	r.log.Debug("circuit closed", "of", a.member.label(), "and", b.member.label())
	for _, e := range []*end{a, b} {
		e.member.remote.Send(wire.CloseCircuit{Circuit: e.id})
	}
}

// closeCircuit ends a circuit at the wish of one of its members.
func (r *Relay) closeCircuit(asker *member, id wire.CircuitID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.circuits.lookup(id); e != nil && e.member == asker {
		r.drop(asker.circuits[e.other.member])
	}
}

const (
	// sweepEvery is how often circuits that are over are looked for.
	sweepEvery = 30 * time.Second

	// circuitIdle is how long a circuit is kept that nothing goes by. No session between its ends
	// lives so long in silence (§17); a member that talks with many, one after the other,
	// would have a circuit with each of them for ever.
	circuitIdle = 15 * time.Minute
)

// sweepCircuits ends, until Close, the circuits whose session at one end is no more, and those that nobody
// uses (§20).
func (r *Relay) sweepCircuits() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-r.done:
			return
		case now := <-tick.C:
			r.sweep(now)
		}
	}
}

func (r *Relay) sweep(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.directory.byKey {
		if len(m.circuits) == 0 {
			continue
		}
		gone := !m.online()
		for _, k := range m.circuits {
			if gone || r.seconds(now)-k.used.Load() >= int64(circuitIdle/time.Second) {
				r.drop(k)
			}
		}
	}
}
