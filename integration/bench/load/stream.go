package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Stream asks for TCP streams at full speed.
type Stream struct {
	Host     string // literal address of the other end
	Streams  int
	Duration time.Duration
	Down     bool // the other end sends
}

// StreamResult is what was received.
type StreamResult struct {
	Bytes      uint64 // by all streams, each in Duration from the arrival of its first
	LongestGap time.Duration
}

// A stream begins with a request. When the client sends, the server reads for as long as the request says
// and answers with what it counted, while the client still sends: nobody waits for what is in buffers.
//
//	'u' or 'd' 1 | duration 8          request; what follows it is the stream, in either direction
//	bytes 8 | longest gap 8            the server's answer to 'u'
const (
	requestLen = 1 + 8
	answerLen  = 8 + 8
	chunk      = 128 << 10
)

// patience is how long anything may take beyond the time it is to take.
const patience = 15 * time.Second

// longest is how long a stream may take that is to be read for a time: its first byte may be late, and then its end.
func longest(d time.Duration) time.Duration { return 2*patience + d }

func serveStream(c net.Conn) {
	defer c.Close()
	var request [requestLen]byte
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(c, request[:]); err != nil {
		return
	}
	d := time.Duration(binary.BigEndian.Uint64(request[1:]))
	if request[0] == 'd' {
		give(c, time.Now().Add(longest(d)))
		return
	}
	n, gap, err := take(c, d)
	if err != nil {
		return // the client sees the missing answer
	}
	answer := binary.BigEndian.AppendUint64(nil, n)
	answer = binary.BigEndian.AppendUint64(answer, uint64(gap))
	if _, err := c.Write(answer); err != nil {
		return
	}
	// Closing with bytes unread would reset the connection, and perhaps overtake the answer.
	c.SetReadDeadline(time.Now().Add(patience))
	io.Copy(io.Discard, struct{ io.Reader }{c})
}

// give sends until it fails, as it does when the far end has enough.
func give(c net.Conn, until time.Time) error {
	c.SetWriteDeadline(until)
	b := make([]byte, chunk)
	for {
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
}

// take reads for a time, and returns how much came and the longest wait for more. The time is from the first byte on, so
// that something came however late this and what sends are let run.
func take(c net.Conn, d time.Duration) (n uint64, gap time.Duration, err error) {
	last := time.Now()
	var end time.Time
	c.SetReadDeadline(last.Add(patience))
	b := make([]byte, chunk)
	for {
		k, err := c.Read(b)
		now := time.Now()
		if n == 0 && k > 0 {
			end = now.Add(d)
			c.SetReadDeadline(end)
		}
		n += uint64(k)
		gap = max(gap, now.Sub(last))
		last = now
		switch {
		case err == nil:
		case n == 0:
			return 0, gap, fmt.Errorf("nothing was received: %w", err)
		case timedOut(err):
			return n, gap, nil
		default:
			return n, gap, fmt.Errorf("the stream ended %v early: %w", end.Sub(now), err)
		}
	}
}

func timedOut(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// Run runs the streams side by side.
func (s Stream) Run(ctx context.Context, n Network) (StreamResult, error) {
	conns := make([]net.Conn, s.Streams)
	for i := range conns {
		c, err := dial(ctx, n, at(s.Host, portStream))
		if err != nil {
			return StreamResult{}, err
		}
		defer abandon(c)
		conns[i] = c
	}
	results := make([]StreamResult, len(conns))
	errs := make([]error, len(conns))
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() { results[i], errs[i] = s.one(c) })
	}
	wg.Wait()
	var all StreamResult
	for _, r := range results {
		all.Bytes += r.Bytes
		all.LongestGap = max(all.LongestGap, r.LongestGap)
	}
	return all, errors.Join(errs...)
}

func (s Stream) one(c net.Conn) (r StreamResult, err error) {
	request := []byte{'u'}
	if s.Down {
		request[0] = 'd'
	}
	request = binary.BigEndian.AppendUint64(request, uint64(s.Duration))
	if _, err := c.Write(request); err != nil {
		return r, err
	}
	if s.Down {
		r.Bytes, r.LongestGap, err = take(c, s.Duration)
		return r, err
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		give(c, time.Now().Add(longest(s.Duration)))
	}()
	var answer [answerLen]byte
	c.SetReadDeadline(time.Now().Add(longest(s.Duration)))
	_, err = io.ReadFull(c, answer[:])
	abandon(c)
	<-sent
	if err != nil {
		return r, fmt.Errorf("waiting for the count: %w", err)
	}
	r.Bytes = binary.BigEndian.Uint64(answer[:])
	r.LongestGap = time.Duration(binary.BigEndian.Uint64(answer[8:]))
	return r, nil
}

// abandon closes a connection without sending what is still in its buffers, where it can: the next
// measurement is to find the network quiet.
func abandon(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(int) error }); ok {
		l.SetLinger(0)
	}
	c.Close()
}

func dial(ctx context.Context, n Network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return n.DialContext(ctx, "tcp", address)
}
