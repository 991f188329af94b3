package peer

import (
	"maps"
	"slices"
	"strings"

	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/relay"
)

// A Counter is one of the numbers in a Status.
type Counter struct {
	Path    string // its names in JSON, such as engine.drops.replay
	Drop    bool   // it counts what was lost, dropped or refused
	Meaning string // of one that is counted, in a line for people
}

// Counters returns what the counters of a Status mean. docs/status.md says as well what to do about each.
func Counters() []Counter {
	all := slices.Clone(counts)
	for d := range engine.Drops() {
		all = append(all, Counter{"engine.drops." + d.String(), true, d.Meaning()})
	}
	drops := relay.Drops()
	for _, name := range slices.Sorted(maps.Keys(drops)) {
		all = append(all, Counter{"relay.drops." + name, true, drops[name]})
	}
	for _, c := range slices.Clone(all) {
		if of, ok := strings.CutPrefix(c.Path, "underlay."); ok {
			all = append(all, Counter{"links." + of, c.Drop, c.Meaning})
		}
	}
	return all
}

// counts are those that have no table of their own.
var counts = []Counter{
	{"engine.traffic.sent_packets", false, "an IP packet sent to a remote"},
	{"engine.traffic.sent_bytes", false, "a byte of these"},
	{"engine.traffic.received_packets", false, "an IP packet received from a remote"},
	{"engine.traffic.received_bytes", false, "a byte of these"},

	{"relay.members", false, "a member in the configuration, now"},
	{"relay.online", false, "a member with a session, now"},
	{"relay.circuits", false, "a circuit between two members, now"},
	{"relay.datagrams", false, "a sealed datagram forwarded"},
	{"relay.bytes", false, "a byte of these"},
	{"relay.shed", false, "a member so far beyond its limit that the kernel drops most of what it sends, now"},

	{"underlay.messages_sent", false, "a message, of one or more datagrams, given to the carrier"},
	{"underlay.datagrams_sent", false, "a datagram the system took"},
	{"underlay.messages_received", false, "a message, of one or more datagrams, received"},
	{"underlay.datagrams_received", false, "a datagram received"},
	{"underlay.send_errors", true, "a datagram the system refused to send"},
	{"underlay.receive_errors", false, "an error of the socket that cost nothing: ICMP said a destination is not reached"},
	{"underlay.refused", false, "a message not taken whole, and sent datagram by datagram"},
	{"underlay.drops.truncated", true, "a datagram longer than the buffer it was received in"},
	{"underlay.drops.empty", true, "a datagram without bytes"},
	{"underlay.drops.oversize", true, "a datagram longer than any of the protocol"},
	{"underlay.drops.queue_full", true, "a datagram for a stream whose far end reads too slowly"},
	{"underlay.drops.ended", true, "a datagram queued for a stream that ended"},
	{"underlay.drops.receive_buffer", true, "a datagram the kernel had no room for in the socket's buffer, of a member that is shed, or with a wrong checksum"},

	{"tun.malformed", true, "a packet whose description by the kernel did not fit it"},

	{"netstack.malformed", true, "a packet received that is no IP packet, or not what it says it is"},
	{"netstack.own_source", true, "a packet received from an own address"},
	{"netstack.not_for_here", true, "a packet received for an address neither own nor advertised"},
	{"netstack.bad_ip", true, "a packet or fragment received whose IP header is wrong"},
	{"netstack.bad_tcp", true, "a TCP segment received whose header or checksum is wrong"},
	{"netstack.bad_udp", true, "a UDP datagram received whose header or checksum is wrong"},
	{"netstack.bad_icmp", true, "an ICMP message received that is wrong"},
	{"netstack.bad_address", true, "a packet received with a source or destination that no packet has"},
	{"netstack.backlog_full", true, "a connection to a listener that does not accept fast enough"},
	{"netstack.no_port", true, "a UDP datagram received for a port nobody listens at"},
	{"netstack.udp_overflow", true, "a UDP datagram received that its program did not read in time"},
	{"netstack.queue_full", true, "a packet to send that nobody took from the stack in time"},
	{"netstack.unsent", true, "a packet the stack could not send: no route, or no own address of that family"},
	{"netstack.loop_full", true, "a packet for an own address, faster than they could be taken in"},
	{"netstack.forwarded", false, "a TCP connection joined to one of the host's"},
	{"netstack.dial_refused", true, "a TCP connection the host's network refused"},
	{"netstack.dial_silent", true, "a TCP connection the host's network did not answer in time"},
	{"netstack.dials_limited", true, "a TCP connection beyond the dials there may be at a time"},
	{"netstack.conns_limited", true, "a TCP connection beyond those there may be at a time"},
	{"netstack.near_failed", true, "a TCP connection whose overlay side went away while the host's was made"},
	{"netstack.flows", false, "a UDP flow into an advertised network"},
	{"netstack.flows_limited", true, "a UDP datagram beyond the flows there may be at a time"},
	{"netstack.flow_failed", true, "a UDP flow the host refused to open"},
	{"netstack.flow_lost", true, "a UDP datagram of a flow that one of its sides refused to send"},
	{"netstack.echoes", false, "an echo request to an advertised address, answered"},
	{"netstack.echoes_silent", true, "an echo request to an advertised address, not answered"},
	{"netstack.echoes_limited", true, "an echo request beyond those there may be at a time"},
	{"netstack.time_wait_reused", false, "a connection opened anew while the last with these ports was in TIME_WAIT"},
	{"netstack.established", false, "a TCP connection established, now"},
	{"netstack.flows_open", false, "a UDP flow into an advertised network, now"},
}
