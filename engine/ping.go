package engine

import (
	"context"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/adit-overlay/adit/wire"
)

// pinging is the echoes that Ping waits for, by the token of their probe.
type pinging map[wire.Token]*echo

type echo struct {
	sent time.Time
	came chan answered // has room for one
}

type answered struct {
	from path
	at   time.Time
}

// A Pong is a remote's answer to Ping.
type Pong struct {
	Remote   *Remote
	Time     time.Duration  // from the call on, a handshake included if one had to be made
	Endpoint netip.AddrPort // where the answer came from: the remote, or the relay; zero for streams
	Via      string         // the relay's name or key when it came by a circuit
}

// Ping asks the remote that owns an overlay address to answer, by a probe in the session with it, which is made if there is
// none (§13). So it is the remote's adit that answers, whatever its host thinks of ICMP. The error is ErrNoMember, ErrNoAnswer,
// net.ErrClosed or the context's.
func (e *Engine) Ping(ctx context.Context, to netip.Addr) (Pong, error) {
	start := time.Now()
	r, err := e.Owner(ctx, to)
	if err != nil {
		return Pong{}, err
	}
	var token wire.Token
	io.ReadFull(e.cfg.Random, token[:])
	q := &echo{came: make(chan answered, 1)}
	if !r.ping(token, q, start) {
		return Pong{}, ErrNoAnswer
	}
	defer r.forgetPing(token)
	select {
	case a := <-q.came:
		p := Pong{Remote: r, Time: a.at.Sub(start)}
		_, p.Endpoint, _ = a.from.under()
		if a.from.relay != nil {
			p.Via = a.from.relay.label()
		}
		return p, nil
	case <-ctx.Done():
		return Pong{}, ctx.Err()
	case <-e.ctx.Done():
		return Pong{}, net.ErrClosed
	}
}

// ping sends an echo's probe, now or with the session it has made. It reports whether the remote is still there.
func (r *Remote) ping(token wire.Token, q *echo, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	if r.pings == nil {
		r.pings = make(pinging)
	}
	r.pings[token] = q
	if s := r.current.Load(); s != nil && r.path.Load() != nil {
		r.sendPing(s, token, q, now)
	} else {
		r.startHandshake(now)
		r.wake()
	}
	return true
}

// sendPings is called with a new session and mu held. What was sent by the one before may have met a remote that had
// forgotten it.
func (r *Remote) sendPings(s *session, now time.Time) {
	for token, q := range r.pings {
		r.sendPing(s, token, q, now)
	}
}

// sendPing counts as a packet, for whoever pings wants the session kept, and renewed when nothing answers.
func (r *Remote) sendPing(s *session, token wire.Token, q *echo, now time.Time) {
	inner, err := wire.Probe{Token: token}.Append(nil)
	p := r.path.Load()
	if err != nil || p == nil {
		return
	}
	q.sent = now
	r.sendInnerBy(s, *p, inner, data, now)
}

// pingAnswered reports whether the token of a probe's reply is that of an echo. It is called with mu held.
func (r *Remote) pingAnswered(token wire.Token, from path, now time.Time) bool {
	q := r.pings[token]
	if q == nil {
		return false
	}
	delete(r.pings, token)
	r.life.rtt = now.Sub(q.sent)
	q.came <- answered{from, now}
	return true
}

func (r *Remote) forgetPing(token wire.Token) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pings, token)
}

// Owner returns the remote that owns an overlay address, asking the relays' directories if none is known. The error is
// ErrNoMember, ErrNoAnswer or the context's.
func (e *Engine) Owner(ctx context.Context, a netip.Addr) (*Remote, error) {
	if r := e.routes.lookup(a); r != nil {
		return r, nil
	}
	m, err := e.find(ctx, wire.Lookup{By: wire.ByAddress, Address: a})
	if err != nil {
		return nil, err
	}
	if r := e.learn(*m); r != nil {
		return r, nil
	}
	return nil, ErrNoMember
}
