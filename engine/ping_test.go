package engine

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/underlay"
)

// ping has n ping other, and wants an answer after a time.
func (n *node) ping(other *node, want time.Duration) Pong {
	n.lab.t.Helper()
	ctx, cancel := context.WithTimeout(n.lab.t.Context(), 10*time.Second)
	defer cancel()
	p, err := n.engine.Ping(ctx, other.ip)
	if err != nil || p.Remote != n.remote(other) || p.Endpoint != other.addr || p.Via != "" || p.Time != want {
		n.lab.t.Fatalf("%+v, %v; want %v after %v", p, err, other.addr, want)
	}
	return p
}

func TestPingIsAnsweredAndTimed(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		const delay = 15 * time.Millisecond
		l.net.SetDefault(underlay.Link{Delay: delay})
		a, b := l.node("a"), l.node("b")
		a.knows(b, at(b))
		b.knows(a, "")
		a.ping(b, 4*delay) // the handshake, then the echo
		a.ping(b, 2*delay)
		b.ping(a, 2*delay)
		if rtt := a.remote(b).Status().RoundTripTime; rtt != 2*delay {
			t.Errorf("round trip %v", rtt)
		}
		if n := a.drops(DropUnexpected) + b.drops(DropUnexpected); n != 0 {
			t.Errorf("%d unexpected", n)
		}
		a.wants() // nothing of it reaches the devices
		b.wants()
	})
}

// TestPingFindsARemoteThatHasRestarted: the first echo meets somebody who does not know the session, says so, and is asked
// again in a new one.
func TestPingFindsARemoteThatHasRestarted(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		advance(5 * time.Minute)
		b.stop()
		b.start()
		b.knows(a, "")
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if p, err := a.engine.Ping(ctx, b.ip); err != nil {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

func TestPingWithoutAnAnswer(t *testing.T) {
	inFakeTime(t, func(t *testing.T, l *lab) {
		a, b := l.pair()
		if _, err := a.engine.Ping(t.Context(), netip.MustParseAddr("10.9.0.77")); !errors.Is(err, ErrNoMember) {
			t.Errorf("an address nobody owns: %v", err)
		}
		b.stop()
		for _, to := range []*node{b, b} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			start := time.Now()
			_, err := a.engine.Ping(ctx, to.ip)
			if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != time.Second {
				t.Errorf("%v after %v", err, took)
			}
			cancel()
		}
		r := a.remote(b)
		r.mu.Lock()
		if n := len(r.pings); n != 0 {
			t.Errorf("%d echoes still waited for", n)
		}
		r.mu.Unlock()
		ended := make(chan error)
		go func() { _, err := a.engine.Ping(context.Background(), b.ip); ended <- err }()
		synctest.Wait()
		a.stop()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	})
}
