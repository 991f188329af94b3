package netstack

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// Stats counts what happened since New. All but the gauges only grow.
type Stats struct {
	// Dropped on the way in, before the stack saw them.
	Malformed  uint64 `json:"malformed"`    // no IP packet, or shorter than its header
	OwnSource  uint64 `json:"own_source"`   // bore an own address as source
	NotForHere uint64 `json:"not_for_here"` // for an address neither own nor advertised

	// Dropped on the way in by the stack.
	BadIP       uint64 `json:"bad_ip"`       // IP header or its checksum wrong
	BadTCP      uint64 `json:"bad_tcp"`      // TCP header or checksum wrong
	BadUDP      uint64 `json:"bad_udp"`      // UDP header or checksum wrong
	BadICMP     uint64 `json:"bad_icmp"`     // ICMP message or checksum wrong
	BadAddress  uint64 `json:"bad_address"`  // a source or destination that no packet has
	BacklogFull uint64 `json:"backlog_full"` // SYNs and ACKs for listeners that do not accept fast enough
	NoPort      uint64 `json:"no_port"`      // UDP datagrams for a port nobody listens at: answered with an ICMP error
	UDPOverflow uint64 `json:"udp_overflow"` // UDP datagrams whose receiver did not keep up

	// Dropped on the way out.
	QueueFull uint64 `json:"queue_full"` // nobody read the device in time
	Unsent    uint64 `json:"unsent"`     // packets the stack could not send: no route, or no address of that family
	LoopFull  uint64 `json:"loop_full"`  // for an own address, faster than they could be taken in

	// Connections into advertised networks.
	Forwarded      uint64 `json:"forwarded"`        // TCP connections joined to the host's
	DialRefused    uint64 `json:"dial_refused"`     // the host said no, or was meant itself: answered with RST
	DialSilent     uint64 `json:"dial_silent"`      // the host did not answer in time: not answered
	DialsLimited   uint64 `json:"dials_limited"`    // SYNs dropped since too many dials were in progress
	ConnsLimited   uint64 `json:"conns_limited"`    // SYNs dropped since there were too many connections
	NearFailed     uint64 `json:"near_failed"`      // the host answered, but the overlay's side went away
	Flows          uint64 `json:"flows"`            // UDP flows opened
	FlowsLimited   uint64 `json:"flows_limited"`    // datagrams dropped since there were too many flows
	FlowFailed     uint64 `json:"flow_failed"`      // UDP flows the host refused to open
	FlowLost       uint64 `json:"flow_lost"`        // datagrams of flows that the host or the stack refused to send
	Echoes         uint64 `json:"echoes"`           // echo requests to advertised addresses answered
	EchoesSilent   uint64 `json:"echoes_silent"`    // the same, not answered
	EchoesLimited  uint64 `json:"echoes_limited"`   // the same, dropped since too many were in progress
	TimeWaitReused uint64 `json:"time_wait_reused"` // connections opened anew while the last of these ports was in TIME_WAIT

	// Gauges.
	Established uint64 `json:"established"` // TCP connections now established
	FlowsOpen   uint64 `json:"flows_open"`  // UDP flows into advertised networks now open
}

// counters are the counters this package keeps itself.
type counters struct {
	malformed, ownSource, notForHere  atomic.Uint64
	udpOverflow                       atomic.Uint64
	queueFull, loopFull               atomic.Uint64
	forwarded, dialRefused            atomic.Uint64
	dialSilent, dialsLimited          atomic.Uint64
	connsLimited                      atomic.Uint64
	nearFailed                        atomic.Uint64
	flows, flowsLimited, flowFailed   atomic.Uint64
	flowLost                          atomic.Uint64
	echoes, echoesSilent, echoLimited atomic.Uint64
	timeWaitReused                    atomic.Uint64
	flowsOpen                         atomic.Int64
}

// Stats returns a snapshot. It may be called at any time, after Close as well.
func (s *Stack) Stats() Stats {
	c := &s.stats
	var sum stackCounts
	sum.add(s.ip.g.Stats())
	if s.forwards != nil {
		sum.add(s.forwards.ip.g.Stats())
	}
	return Stats{
		Malformed:  c.malformed.Load(),
		OwnSource:  c.ownSource.Load(),
		NotForHere: c.notForHere.Load(),

		BadIP:       sum.badIP,
		BadTCP:      sum.badTCP,
		BadUDP:      sum.badUDP,
		BadICMP:     sum.badICMP,
		BadAddress:  sum.badAddress,
		BacklogFull: sum.backlogFull,
		NoPort:      sum.noPort,
		UDPOverflow: sum.udpOverflow + c.udpOverflow.Load(),

		QueueFull: c.queueFull.Load(),
		Unsent:    sum.unsent,
		LoopFull:  c.loopFull.Load(),

		Forwarded:      c.forwarded.Load(),
		DialRefused:    c.dialRefused.Load(),
		DialSilent:     c.dialSilent.Load(),
		DialsLimited:   c.dialsLimited.Load(),
		ConnsLimited:   c.connsLimited.Load(),
		NearFailed:     c.nearFailed.Load(),
		Flows:          c.flows.Load(),
		FlowsLimited:   c.flowsLimited.Load(),
		FlowFailed:     c.flowFailed.Load(),
		FlowLost:       c.flowLost.Load(),
		Echoes:         c.echoes.Load(),
		EchoesSilent:   c.echoesSilent.Load(),
		EchoesLimited:  c.echoLimited.Load(),
		TimeWaitReused: c.timeWaitReused.Load(),

		Established: sum.established,
		FlowsOpen:   uint64(c.flowsOpen.Load()),
	}
}

// stackCounts are counts of gVisor's stacks, summed up.
type stackCounts struct {
	badIP, badTCP, badUDP, badICMP, badAddress uint64
	backlogFull, noPort, udpOverflow, unsent   uint64
	established                                uint64
}

func (c *stackCounts) add(g tcpip.Stats) {
	c.badIP += g.IP.MalformedPacketsReceived.Value() + g.IP.MalformedFragmentsReceived.Value()
	c.badAddress += g.IP.InvalidSourceAddressesReceived.Value() + g.IP.InvalidDestinationAddressesReceived.Value()
	c.unsent += g.IP.OutgoingPacketErrors.Value()
	c.backlogFull += g.TCP.ListenOverflowSynDrop.Value() + g.TCP.ListenOverflowAckDrop.Value()
	c.noPort += g.UDP.UnknownPortErrors.Value()
	c.badTCP += g.TCP.InvalidSegmentsReceived.Value() + g.TCP.ChecksumErrors.Value()
	c.badUDP += g.UDP.MalformedPacketsReceived.Value() + g.UDP.ChecksumErrors.Value()
	c.badICMP += g.ICMP.V4.PacketsReceived.Invalid.Value() + g.ICMP.V6.PacketsReceived.Invalid.Value()
	c.udpOverflow += g.UDP.ReceiveBufferErrors.Value()
	c.established += g.TCP.CurrentEstablished.Value()
}
