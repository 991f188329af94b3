package engine

import (
	"iter"
	"sync/atomic"
)

// A Drop is a reason for which a datagram or packet went no further. Each is counted.
type Drop uint8

const (
	// From the underlay.
	DropMalformed Drop = iota
	DropMAC1
	DropCookie
	DropHandshakeQueue
	DropHandshakeForged
	DropUnknownKey
	DropReplayedHandshake
	DropCooldown
	DropCrossed
	DropUnexpected
	DropUnknownIndex
	DropTag
	DropReplay
	DropExpired
	DropInner
	DropSource
	DropControl
	DropControlRate
	DropCircuit
	DropDevice

	// From the device.
	DropOutgoing
	DropNoRoute
	DropHeld
	DropNoPath
	DropSend

	// Our own.
	DropControlUnsent

	dropReasons
)

// dropTable has the name by which each is counted, and what it means to people.
var dropTable = [dropReasons]struct{ name, meaning string }{
	DropMalformed:         {"malformed", "a datagram that is no message of the protocol"},
	DropMAC1:              {"mac1", "a handshake not made for our public key"},
	DropCookie:            {"cookie", "a handshake that has to show a cookie first, under load"},
	DropHandshakeQueue:    {"handshake_queue", "a handshake more than the queue holds"},
	DropHandshakeForged:   {"handshake_forged", "a handshake that does not decrypt"},
	DropUnknownKey:        {"unknown_key", "a handshake of somebody who is no remote of ours"},
	DropReplayedHandshake: {"replayed_handshake", "an initiation no newer than the last of its key"},
	DropCooldown:          {"cooldown", "an initiation beyond its key's or address's budget"},
	DropCrossed:           {"crossed", "an initiation that crossed ours, which goes first"},
	DropUnexpected:        {"unexpected", "an answer or notice that we do not wait for, or no longer"},
	DropUnknownIndex:      {"unknown_index", "data for a session we do not hold"},
	DropTag:               {"tag", "data that does not decrypt"},
	DropReplay:            {"replay", "data received before, or too old to tell"},
	DropExpired:           {"expired", "data of a session past its end"},
	DropInner:             {"inner", "an inner packet that is malformed"},
	DropSource:            {"source", "an inner packet from an address that is not the remote's"},
	DropControl:           {"control", "a control message that is malformed, not for us, or more than the queue holds"},
	DropControlRate:       {"control_rate", "a control message beyond what one remote may send"},
	DropCircuit:           {"circuit", "a datagram by a circuit that is not open"},
	DropDevice:            {"device", "a packet the device refused"},
	DropOutgoing:          {"outgoing", "a packet from the device that is malformed"},
	DropNoRoute:           {"no_route", "a packet to an address nobody is known to own"},
	DropHeld:              {"held", "a packet that waited for a session, and was the oldest of too many or waited too long"},
	DropNoPath:            {"no_path", "a packet to a remote that has no path"},
	DropSend:              {"send", "a batch of which the carrier could not send all"},
	DropControlUnsent:     {"control_unsent", "a control message of ours to a remote without session or path"},
}

// String returns the name by which Stats counts d.
func (d Drop) String() string { return dropTable[d].name }

// Meaning says in a line for people what was dropped.
func (d Drop) Meaning() string { return dropTable[d].meaning }

// Drops returns all reasons there are.
func Drops() iter.Seq[Drop] {
	return func(yield func(Drop) bool) {
		for d := range dropReasons {
			if !yield(d) {
				return
			}
		}
	}
}

type dropCounters [dropReasons]atomic.Uint64

func (e *Engine) drop(d Drop) { e.drops[d].Add(1) }

func (e *Engine) dropN(d Drop, n int) { e.drops[d].Add(uint64(n)) }

// trafficCounters count inner packets, a super-packet as the segments it is made of.
type trafficCounters struct {
	sentPackets, sentBytes         atomic.Uint64
	receivedPackets, receivedBytes atomic.Uint64
}

// Traffic is what an engine or a remote has carried: inner IP packets and their bytes.
type Traffic struct {
	SentPackets     uint64 `json:"sent_packets"`
	SentBytes       uint64 `json:"sent_bytes"`
	ReceivedPackets uint64 `json:"received_packets"`
	ReceivedBytes   uint64 `json:"received_bytes"`
}

func (t *trafficCounters) snapshot() Traffic {
	return Traffic{t.sentPackets.Load(), t.sentBytes.Load(), t.receivedPackets.Load(), t.receivedBytes.Load()}
}

// Stats is a snapshot of an engine's counters.
type Stats struct {
	Traffic Traffic           `json:"traffic"`
	Drops   map[string]uint64 `json:"drops"` // by Drop.String; reasons that have not occurred are left out
}

// Stats returns the counters as they are now.
func (e *Engine) Stats() Stats {
	s := Stats{Traffic: e.traffic.snapshot(), Drops: make(map[string]uint64)}
	for d := range Drops() {
		if n := e.drops[d].Load(); n > 0 {
			s.Drops[d.String()] = n
		}
	}
	return s
}

// Dropped returns how often d has occurred.
func (e *Engine) Dropped(d Drop) uint64 { return e.drops[d].Load() }
