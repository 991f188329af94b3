// Package underlay moves sealed datagrams between machines: over UDP in batches, over any
// net.Conn as a framed stream, or in memory.
package underlay

import (
	"errors"
	"net/netip"
)

// A Message is one or more datagrams to or from one address, back to back in Buf. Each is Seg
// bytes long, but the last may be shorter. It is what one UDP_SEGMENT or UDP_GRO message
// holds; a carrier without these takes it apart on sending and receives one datagram a message.
type Message struct {
	Buf  []byte
	Seg  int // 1 <= Seg <= len(Buf)
	Addr netip.AddrPort
}

// MaxMessage is the most bytes, and MaxSegments the most datagrams, of one Message.
const (
	MaxMessage  = 65400 // a longer UDP_SEGMENT message is cut by the kernel in software
	MaxSegments = 64
)

// MaxBatch is how many messages Receive should have room for. With less of it, what was taken from
// the system at once is handed out in several calls.
const MaxBatch = 64

// A Receiver is where the datagrams of a carrier come out.
type Receiver interface {
	// Receive waits for datagrams and fills ms from the start; it returns how many it filled. The
	// buffers are the receiver's, borrowed until its next Receive. One goroutine at a time
	// may call it. It returns net.ErrClosed after Close; any other error is final as well.
	Receive(ms []Message) (int, error)
}

// A Carrier moves datagrams, which may be lost, doubled or reordered on the way.
type Carrier interface {
	// A carrier is its own receiver. One that has a method Receiver returns others by it, each with buffers
	// of its own, for several goroutines that receive in turn.
	Receiver

	// Send sends all of ms, in order, and keeps none of its memory. It may be called by many
	// goroutines. An error says that at least one datagram could not be sent; the
	// carrier remains usable unless it is net.ErrClosed.
	Send(ms []Message) error

	// Probe sends m, which is one datagram, so that nobody on its way fragments it: it arrives whole or not
	// at all. It is for finding out what a path carries, and does not wait. An error that is ErrTooLong says that
	// not even the first hop carries m; one that is errors.ErrUnsupported, that this carrier cannot forbid
	// fragments, so that nothing can be found out. A carrier between two fixed ends carries up to MaxMessage.
	Probe(m Message) error

	// LocalAddr is the address others may reach this end by, as far as this end can know;
	// invalid for a carrier between two fixed ends.
	LocalAddr() netip.AddrPort

	// Close ends Receive and Send, releases everything and waits for the carrier's own goroutines.
	Close() error
}

// ErrTooLong is the error of Probe for a datagram that the first hop does not carry whole.
var ErrTooLong = errors.New("underlay: datagram too long for the first hop")
