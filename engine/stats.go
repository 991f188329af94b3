package engine

import "sync/atomic"

// A Drop is a reason for which a datagram or packet went no further. Each is counted.
type Drop uint8

const (
	// From the underlay.
	DropMalformed         Drop = iota // a datagram that is no message of the protocol
	DropMAC1                          // a handshake not made for our public key
	DropCookie                        // a handshake answered by a cookie, under load
	DropHandshakeQueue                // a handshake more than the queue holds
	DropHandshakeForged               // a handshake that does not decrypt
	DropUnknownKey                    // a handshake of somebody who is no remote of ours
	DropReplayedHandshake             // an initiation no newer than the last of its key
	DropCooldown                      // an initiation beyond its key's or address's budget
	DropCrossed                       // an initiation that crossed ours, which goes first
	DropUnexpected                    // a response or cookie we did not ask for
	DropUnknownIndex                  // data for a session we do not hold
	DropTag                           // data that does not decrypt
	DropReplay                        // data received before, or too old to tell
	DropExpired                       // data of a session past its end
	DropInner                         // an inner packet that is malformed
	DropSource                        // an inner packet from an address that is not the remote's
	DropControl                       // a control message that is malformed, or more than the queue holds
	DropCircuit                       // a datagram by a circuit that is not open
	DropDevice                        // a packet the device refused

	// From the device.
	DropOutgoing // a packet from the device that is malformed
	DropNoRoute  // a packet to an address nobody is known to own
	DropHeld     // a packet that waited for a session, and was the oldest of too many or waited too long
	DropNoPath   // a packet to a remote that has no path
	DropSend     // a datagram the carrier could not send

	dropReasons
)

var dropNames = [dropReasons]string{
	DropMalformed: "malformed", DropMAC1: "mac1", DropCookie: "cookie", DropHandshakeQueue: "handshake_queue",
	DropHandshakeForged: "handshake_forged", DropUnknownKey: "unknown_key", DropReplayedHandshake: "replayed_handshake",
	DropCooldown: "cooldown", DropCrossed: "crossed", DropUnexpected: "unexpected", DropUnknownIndex: "unknown_index",
	DropTag: "tag", DropReplay: "replay", DropExpired: "expired", DropInner: "inner", DropSource: "source",
	DropControl: "control", DropCircuit: "circuit", DropDevice: "device", DropOutgoing: "outgoing", DropNoRoute: "no_route",
	DropHeld: "held", DropNoPath: "no_path", DropSend: "send",
}

// String returns the name by which Stats counts d.
func (d Drop) String() string { return dropNames[d] }

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
	SentPackets, SentBytes         uint64
	ReceivedPackets, ReceivedBytes uint64
}

func (t *trafficCounters) snapshot() Traffic {
	return Traffic{t.sentPackets.Load(), t.sentBytes.Load(), t.receivedPackets.Load(), t.receivedBytes.Load()}
}

// Stats is a snapshot of an engine's counters.
type Stats struct {
	Traffic Traffic
	Drops   map[string]uint64 // by Drop.String; reasons that have not occurred are left out
}

// Stats returns the counters as they are now.
func (e *Engine) Stats() Stats {
	s := Stats{Traffic: e.traffic.snapshot(), Drops: make(map[string]uint64)}
	for d := range dropReasons {
		if n := e.drops[d].Load(); n > 0 {
			s.Drops[d.String()] = n
		}
	}
	return s
}

// Dropped returns how often d has occurred.
func (e *Engine) Dropped(d Drop) uint64 { return e.drops[d].Load() }
