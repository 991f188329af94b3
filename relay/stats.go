package relay

import (
	"sync/atomic"

	"github.com/adit-overlay/adit/underlay"
)

// drop is a reason for which a datagram was not forwarded, or a member's question not answered.
type drop uint8

const (
	dropUnknown drop = iota
	dropMoved
	dropOffline
	dropLimit
	dropSend
	dropQuestionLimit
	dropCircuitLimit

	dropReasons
)

// dropTable has the name by which each is counted, and what it means to people.
var dropTable = [dropReasons]struct{ name, meaning string }{
	dropUnknown:       {"unknown_circuit", "a datagram by a circuit that is not open"},
	dropMoved:         {"moved", "a datagram that did not come from where its sender is known to be"},
	dropOffline:       {"offline", "a datagram to a member without a session"},
	dropLimit:         {"limit", "a datagram beyond what its sender may send"},
	dropSend:          {"send", "a batch of which the carrier could not send all"},
	dropQuestionLimit: {"question_limit", "a question beyond what its member may ask"},
	dropCircuitLimit:  {"circuit_limit", "a circuit refused, as one of its ends has as many as it may"},
}

// Drops returns the names by which Stats counts drops, with what each means.
func Drops() map[string]string {
	all := make(map[string]string, dropReasons)
	for _, d := range dropTable {
		all[d.name] = d.meaning
	}
	return all
}

// counters count datagrams, but bytes and, in dropSend, the calls of a carrier's Send that failed in part.
type counters struct {
	datagrams, bytes atomic.Uint64
	drops            [dropReasons]atomic.Uint64
}

// Stats is a snapshot of what a relay has forwarded and what it has not.
type Stats struct {
	Members  int `json:"members"`
	Online   int `json:"online"`
	Circuits int `json:"circuits"`

	Datagrams uint64 `json:"datagrams"` // forwarded
	Bytes     uint64 `json:"bytes"`

	// Shed is how many members send so far beyond their limit that the system drops most of it unread. The carrier counts
	// that, in Drops.ReceiveBuffer.
	Shed int `json:"shed"`

	// Drops counts by the names of Drops. Reasons that have not occurred are left out.
	Drops map[string]uint64 `json:"drops"`
}

// Stats returns the relay's counters as they are now.
func (r *Relay) Stats() Stats {
	c := &r.counters
	s := Stats{Datagrams: c.datagrams.Load(), Bytes: c.bytes.Load(), Drops: make(map[string]uint64)}
	for d := range dropReasons {
		if n := c.drops[d].Load(); n > 0 {
			s.Drops[dropTable[d].name] = n
		}
	}
	for _, m := range r.directory.byKey {
		if m.remote == nil {
			continue
		}
		s.Members++
		if m.online() {
			s.Online++
		}
	}
	for _, c := range r.engine.Carriers() {
		s.Shed += c.(*forwarder).shedder.sources()
	}
	r.circuits.mu.RLock()
	s.Circuits = len(r.circuits.byID) / 2
	r.circuits.mu.RUnlock()
	return s
}

// Carriers returns the carriers the relay forwards on, as AddCarrier was given them.
func (r *Relay) Carriers() []underlay.Carrier {
	all := r.engine.Carriers()
	for i, c := range all {
		all[i] = c.(*forwarder).Carrier
	}
	return all
}
