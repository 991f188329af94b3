package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// Echo asks for round trips of 64 bytes, one after another.
type Echo struct {
	Host     string
	UDP      bool // else TCP, on one connection
	Duration time.Duration
	Beside   *Stream // runs meanwhile; its Duration is that of the echoes
}

// EchoResult is how long the round trips took. Lost is of UDP only.
type EchoResult struct {
	Latency
	Lost int
}

const (
	echoLen = 64

	// udpLoss is when a datagram that has not come back counts as lost.
	udpLoss = time.Second

	// settle is how long a stream has to fill its buffers before the first echo beside it.
	settle = 300 * time.Millisecond
)

// Run measures.
func (e Echo) Run(ctx context.Context, n Network) (EchoResult, error) {
	if e.Beside == nil {
		return e.alone(ctx, n)
	}
	s := *e.Beside
	s.Duration = e.Duration + 2*settle
	streamed := make(chan error, 1)
	go func() {
		_, err := s.Run(ctx, n)
		streamed <- err
	}()
	time.Sleep(settle)
	r, err := e.alone(ctx, n)
	if serr := <-streamed; err == nil && serr != nil {
		err = fmt.Errorf("the stream beside: %w", serr)
	}
	return r, err
}

func (e Echo) alone(ctx context.Context, n Network) (EchoResult, error) {
	if e.UDP {
		return e.udp(ctx, n)
	}
	return e.tcp(ctx, n)
}

func (e Echo) tcp(ctx context.Context, n Network) (EchoResult, error) {
	c, err := dial(ctx, n, at(e.Host, portEcho))
	if err != nil {
		return EchoResult{}, err
	}
	defer c.Close()
	var took []time.Duration
	b := make([]byte, echoLen)
	for now, end := time.Now(), time.Now().Add(e.Duration); now.Before(end); {
		c.SetDeadline(now.Add(patience))
		if _, err := c.Write(b); err != nil {
			return EchoResult{}, err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return EchoResult{}, err
		}
		before := now
		now = time.Now()
		took = append(took, now.Sub(before))
	}
	return EchoResult{Latency: latencyOf(took)}, nil
}

func (e Echo) udp(ctx context.Context, n Network) (EchoResult, error) {
	c, err := n.DialContext(ctx, "udp", at(e.Host, portUDP))
	if err != nil {
		return EchoResult{}, err
	}
	defer c.Close()
	var took []time.Duration
	var r EchoResult
	b := make([]byte, echoLen)
	b[0] = udpEcho
	begin := time.Now()
	// One comes back at least, if any does, however late this is let run.
	going := func() bool {
		elapsed := time.Since(begin)
		return elapsed < e.Duration || len(took) == 0 && elapsed < patience
	}
	for serial := uint64(0); going(); serial++ {
		binary.BigEndian.PutUint64(b[1:], serial)
		sent := time.Now()
		if _, err := c.Write(b); err != nil {
			return r, err
		}
		came, err := awaitEcho(c, b, sent.Add(udpLoss))
		switch {
		case timedOut(err):
			r.Lost++
		case err != nil:
			return r, err
		default:
			took = append(took, came.Sub(sent))
		}
	}
	r.Latency = latencyOf(took)
	return r, nil
}

// awaitEcho waits for the datagram want to come back, not minding late ones.
func awaitEcho(c net.Conn, want []byte, until time.Time) (time.Time, error) {
	var b [echoLen]byte
	c.SetReadDeadline(until)
	for {
		n, err := c.Read(b[:])
		if err != nil || bytes.Equal(b[:n], want) {
			return time.Now(), err
		}
	}
}
