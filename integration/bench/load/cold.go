package load

import (
	"context"
	"fmt"
	"io"
	"time"
)

// A Member is a network that has just been joined, to be left again.
type Member interface {
	Network
	io.Closer
}

// Join joins a network as one of several members, 0 and up, each with keys of its own.
type Join func(ctx context.Context, member int) (Member, error)

// Cold asks for dials without a session: join the network, dial, send a byte and get it back.
type Cold struct {
	Host  string
	Dials int // each as another member
}

// Run makes the dials one after another. The time runs from before the joining to the first byte.
func (c Cold) Run(ctx context.Context, join Join) (Latency, error) {
	var took []time.Duration
	for i := range c.Dials {
		d, err := c.dial(ctx, join, i)
		if err != nil {
			return Latency{}, fmt.Errorf("dial %d: %w", i, err)
		}
		took = append(took, d)
	}
	return latencyOf(took), nil
}

func (c Cold) dial(ctx context.Context, join Join, member int) (time.Duration, error) {
	begin := time.Now()
	m, err := join(ctx, member)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	conn, err := dial(ctx, m, at(c.Host, portEcho))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	b := []byte{0}
	if _, err := conn.Write(b); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(conn, b); err != nil {
		return 0, err
	}
	return time.Since(begin), nil
}
