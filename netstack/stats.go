package netstack

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// Stats counts what happened since New. All but the gauges only grow.
type Stats struct {
	// Dropped on the way in, before the stack saw them.
	Malformed  uint64 // no IP packet, or shorter than its header
	OwnSource  uint64 // bore an own address as source
	NotForHere uint64 // for an address neither own nor advertised

	// Dropped on the way in by the stack.
	BadIP       uint64 // IP header or its checksum wrong
	BadTCP      uint64 // TCP header or checksum wrong
	BadUDP      uint64 // UDP header or checksum wrong
	BadICMP     uint64 // ICMP message or checksum wrong
	UDPOverflow uint64 // UDP datagrams whose receiver did not keep up

	// Dropped on the way out.
	QueueFull uint64 // nobody read the device in time
	LoopFull  uint64 // for an own address, faster than they could be taken in

	// Connections into advertised networks.
	Forwarded      uint64 // TCP connections joined to the host's
	DialRefused    uint64 // the host said no: answered with RST
	DialSilent     uint64 // the host did not answer in time: not answered
	DialsLimited   uint64 // SYNs dropped since too many dials were in progress
	NearFailed     uint64 // the host answered, but the overlay's side went away
	Flows          uint64 // UDP flows opened
	FlowsLimited   uint64 // datagrams dropped since there were too many flows
	FlowFailed     uint64 // UDP flows the host refused to open
	Echoes         uint64 // echo requests to advertised addresses answered
	EchoesSilent   uint64 // the same, not answered
	EchoesLimited  uint64 // the same, dropped since too many were in progress
	TimeWaitReused uint64 // connections opened anew while the last of these ports was in TIME_WAIT

	// Gauges.
	Established uint64 // TCP connections now established
	FlowsOpen   uint64 // UDP flows into advertised networks now open
}

// counters are the counters this package keeps itself.
type counters struct {
	malformed, ownSource, notForHere  atomic.Uint64
	udpOverflow                       atomic.Uint64
	queueFull, loopFull               atomic.Uint64
	forwarded, dialRefused            atomic.Uint64
	dialSilent, dialsLimited          atomic.Uint64
	nearFailed                        atomic.Uint64
	flows, flowsLimited, flowFailed   atomic.Uint64
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
		UDPOverflow: sum.udpOverflow + c.udpOverflow.Load(),

		QueueFull: c.queueFull.Load(),
		LoopFull:  c.loopFull.Load(),

		Forwarded:      c.forwarded.Load(),
		DialRefused:    c.dialRefused.Load(),
		DialSilent:     c.dialSilent.Load(),
		DialsLimited:   c.dialsLimited.Load(),
		NearFailed:     c.nearFailed.Load(),
		Flows:          c.flows.Load(),
		FlowsLimited:   c.flowsLimited.Load(),
		FlowFailed:     c.flowFailed.Load(),
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
	badIP, badTCP, badUDP, badICMP, udpOverflow, established uint64
}

func (c *stackCounts) add(g tcpip.Stats) {
	c.badIP += g.IP.MalformedPacketsReceived.Value()
	c.badTCP += g.TCP.InvalidSegmentsReceived.Value() + g.TCP.ChecksumErrors.Value()
	c.badUDP += g.UDP.MalformedPacketsReceived.Value() + g.UDP.ChecksumErrors.Value()
	c.badICMP += g.ICMP.V4.PacketsReceived.Invalid.Value() + g.ICMP.V6.PacketsReceived.Invalid.Value()
	c.udpOverflow += g.UDP.ReceiveBufferErrors.Value()
	c.established += g.TCP.CurrentEstablished.Value()
}
