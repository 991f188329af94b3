package underlay

import "sync/atomic"

// Stats is what a carrier has done so far. All numbers only grow.
type Stats struct {
	MessagesSent      uint64 // given to Send
	DatagramsSent     uint64 // that the system took
	MessagesReceived  uint64
	DatagramsReceived uint64

	// SendErrors counts datagrams that could not be sent: refused by the system or by the carrier.
	// A message that breaks the rules of Message counts as one.
	SendErrors uint64

	// ReceiveErrors counts errors of the socket that did not end the carrier: what an ICMP message
	// of a destination that cannot be reached left there.
	ReceiveErrors uint64

	// Refused counts messages the system would not take as one with UDP_SEGMENT; they were
	// sent datagram by datagram instead, and are in the counts above as well.
	Refused uint64

	Drops Drops

	GSO bool // messages go out whole with UDP_SEGMENT
	GRO bool // messages come in whole with UDP_GRO
}

// Drops counts datagrams lost inside a carrier, by reason.
type Drops struct {
	Truncated uint64 // received, longer than the buffer
	Empty     uint64 // received, without bytes
	Oversize  uint64 // received, longer than MaxMessage
	QueueFull uint64 // Stream: not sent, the far end reads too slowly; memory: not read in time
}

// counters is Stats while it is being counted. Any goroutine may add.
type counters struct {
	messagesSent, datagramsSent         atomic.Uint64
	messagesReceived, datagramsReceived atomic.Uint64
	sendErrors, receiveErrors, refused  atomic.Uint64

	truncated, empty, oversize, queueFull atomic.Uint64
}

func (c *counters) snapshot() Stats {
	return Stats{
		MessagesSent:      c.messagesSent.Load(),
		DatagramsSent:     c.datagramsSent.Load(),
		MessagesReceived:  c.messagesReceived.Load(),
		DatagramsReceived: c.datagramsReceived.Load(),
		SendErrors:        c.sendErrors.Load(),
		ReceiveErrors:     c.receiveErrors.Load(),
		Refused:           c.refused.Load(),
		Drops: Drops{
			Truncated: c.truncated.Load(),
			Empty:     c.empty.Load(),
			Oversize:  c.oversize.Load(),
			QueueFull: c.queueFull.Load(),
		},
	}
}

// received counts ms as handed to the caller of Receive.
func (c *counters) received(ms []Message) {
	datagrams := 0
	for i := range ms {
		datagrams += ms[i].datagrams()
	}
	c.messagesReceived.Add(uint64(len(ms)))
	c.datagramsReceived.Add(uint64(datagrams))
}
