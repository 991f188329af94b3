package underlay

import "sync/atomic"

// Stats is what a carrier has done so far. All numbers only grow.
type Stats struct {
	MessagesSent      uint64 `json:"messages_sent"`  // given to Send
	DatagramsSent     uint64 `json:"datagrams_sent"` // that the system took
	MessagesReceived  uint64 `json:"messages_received"`
	DatagramsReceived uint64 `json:"datagrams_received"`

	// SendErrors counts datagrams that could not be sent: refused by the system or by the carrier.
	// A message that breaks the rules of Message counts as one.
	SendErrors uint64 `json:"send_errors"`

	// ReceiveErrors counts errors of the socket that did not end the carrier: what an ICMP message
	// of a destination that cannot be reached left there.
	ReceiveErrors uint64 `json:"receive_errors"`

	// Refused counts messages the system would not take as one with UDP_SEGMENT; they were
	// sent datagram by datagram instead, and are in the counts above as well.
	Refused uint64 `json:"refused"`

	Drops Drops `json:"drops"`

	GSO bool `json:"gso"` // messages go out whole with UDP_SEGMENT
	GRO bool `json:"gro"` // messages come in whole with UDP_GRO
}

// Drops counts datagrams lost inside a carrier, by reason.
type Drops struct {
	Truncated uint64 `json:"truncated"`  // received, longer than the buffer
	Empty     uint64 `json:"empty"`      // received, without bytes
	Oversize  uint64 `json:"oversize"`   // received, longer than MaxMessage
	QueueFull uint64 `json:"queue_full"` // Stream: not sent, the far end reads too slowly; memory: not read in time
	Ended     uint64 `json:"ended"`      // Stream: queued when the connection ended

	// ReceiveBuffer counts what the system dropped since the socket's buffer was full, which is not read fast enough, since
	// Shed said so, or since a checksum was wrong. Only Linux tells.
	ReceiveBuffer uint64 `json:"receive_buffer"`
}

// counters is Stats while it is being counted. Any goroutine may add.
type counters struct {
	messagesSent, datagramsSent         atomic.Uint64
	messagesReceived, datagramsReceived atomic.Uint64
	sendErrors, receiveErrors, refused  atomic.Uint64

	truncated, empty, oversize, queueFull, ended, receiveBuffer atomic.Uint64
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
			Truncated:     c.truncated.Load(),
			Empty:         c.empty.Load(),
			Oversize:      c.oversize.Load(),
			QueueFull:     c.queueFull.Load(),
			Ended:         c.ended.Load(),
			ReceiveBuffer: c.receiveBuffer.Load(),
		},
	}
}

// Add returns the sum of two carriers' counts. Of GSO and GRO it has what holds for both.
func (s Stats) Add(t Stats) Stats {
	s.MessagesSent += t.MessagesSent
	s.DatagramsSent += t.DatagramsSent
	s.MessagesReceived += t.MessagesReceived
	s.DatagramsReceived += t.DatagramsReceived
	s.SendErrors += t.SendErrors
	s.ReceiveErrors += t.ReceiveErrors
	s.Refused += t.Refused
	s.Drops.Truncated += t.Drops.Truncated
	s.Drops.Empty += t.Drops.Empty
	s.Drops.Oversize += t.Drops.Oversize
	s.Drops.QueueFull += t.Drops.QueueFull
	s.Drops.Ended += t.Drops.Ended
	s.Drops.ReceiveBuffer += t.Drops.ReceiveBuffer
	s.GSO = s.GSO && t.GSO
	s.GRO = s.GRO && t.GRO
	return s
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
