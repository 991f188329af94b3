package underlay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// Stream is a carrier over a connection between two fixed ends. The addresses of messages mean
// nothing to it: it does not look at those of Send, and gives the zero AddrPort.
//
// When the connection ends or brings what is no frame, Receive returns why (io.EOF, wrapped, if
// the far end closed it), and the carrier is closed both ways: Send then returns an error
// that is net.ErrClosed.
type Stream struct {
	conn  net.Conn
	count counters

	frames  frameReader // only the receiving goroutine touches it
	queue   sendQueue
	started sync.Once // the writer
	writer  sync.WaitGroup
	ending  sync.Once // the conn
}

// NewStream makes conn a carrier, which owns it from then on. Of cfg it takes Queue.
func NewStream(conn net.Conn, cfg Config) *Stream {
	cfg = cfg.withDefaults()
	s := &Stream{conn: conn, frames: frameReader{r: conn}}
	s.queue.open(cfg.Queue)
	return s
}

// Receive implements Carrier.
func (s *Stream) Receive(ms []Message) (int, error) {
	if len(ms) == 0 {
		return 0, nil
	}
	if cause := s.queue.ended(); cause != nil {
		return 0, receiveError(cause)
	}
	n, err := s.frames.read(ms)
	if err != nil {
		return 0, receiveError(s.end(err))
	}
	s.count.received(ms[:n])
	return n, nil
}

func receiveError(cause error) error { return closedOr("stream", cause) }

// Send implements Carrier. It copies what it sends to a queue, and while that is full waits for
// the far end to read, but 5 ms at most; what finds no room is dropped, and counted. After a wait in vain
// it does not wait again until the far end has read. So a far end that reads briskly is not
// flooded, and one that does not costs next to nothing.
func (s *Stream) Send(ms []Message) error {
	s.count.messagesSent.Add(uint64(len(ms)))
	s.started.Do(s.startWriter)
	var failed error
	var wait patience
	defer wait.stop()
	for i := range ms {
		err := s.sendMessage(&ms[i], &wait)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if failed == nil {
			failed = err
		}
	}
	return failed
}

// Probe implements Carrier: a frame arrives whole.
func (s *Stream) Probe(m Message) error {
	if err := m.checkOne(); err != nil {
		s.count.sendErrors.Add(1)
		return fmt.Errorf("underlay: probe: %w", err)
	}
	return s.Send([]Message{m})
}

func (s *Stream) sendMessage(m *Message, wait *patience) error {
	if err := m.check(); err != nil {
		s.count.sendErrors.Add(1)
		return fmt.Errorf("underlay: send: %w", err)
	}
	dropped, err := s.queue.put(m, wait)
	if err != nil {
		return err
	}
	if dropped > 0 {
		s.count.queueFull.Add(uint64(dropped))
		return errQueueFull
	}
	return nil
}

var errQueueFull = errors.New("underlay: send: dropped, as the far end of the stream reads too slowly")

func (s *Stream) startWriter() {
	s.writer.Go(s.write)
}

// write brings the queue into the connection until one of them ends.
func (s *Stream) write() {
	for {
		frames, datagrams := s.queue.take()
		if datagrams == 0 {
			return
		}
		if _, err := s.conn.Write(frames); err != nil {
			s.count.ended.Add(uint64(datagrams)) // some of them may have arrived
			s.end(err)
			return
		}
		s.count.datagramsSent.Add(uint64(datagrams))
	}
}

// end closes the carrier because of err, and returns why it was closed first.
func (s *Stream) end(err error) error {
	lost, cause := s.queue.end(err)
	s.count.ended.Add(uint64(lost))
	s.ending.Do(func() { s.conn.Close() })
	return cause
}

// LocalAddr returns the zero AddrPort: there is no address to reach this end by.
func (s *Stream) LocalAddr() netip.AddrPort { return netip.AddrPort{} }

// Close closes the connection and waits for the writer. What is still queued is dropped. A
// tls.Conn takes up to five seconds to say goodbye to a far end that does not read.
func (s *Stream) Close() error {
	s.end(net.ErrClosed)
	s.started.Do(func() {}) // no writer may start any more
	s.writer.Wait()
	return nil
}

// Stats returns what the carrier has done so far.
func (s *Stream) Stats() Stats { return s.count.snapshot() }
