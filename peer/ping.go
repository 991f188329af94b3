package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/wire"
)

// An Echo is an answer to Ping.
type Echo struct {
	Address   netip.Addr     `json:"address"`           // that was asked
	Name      string         `json:"name,omitempty"`    // of the remote that owns it
	PublicKey wire.PublicKey `json:"public_key"`        // and its key
	Time      time.Duration  `json:"time_ns"`           // from the call to the answer
	Endpoint  netip.AddrPort `json:"endpoint,omitzero"` // where it came from: the remote, or the relay; zero for links
	Via       string         `json:"via,omitempty"`     // the relay's name or key when the path is a circuit
	Self      bool           `json:"self,omitempty"`    // the address is this peer's own
}

// Ping sends one echo to host, a name or address as DialContext takes it, and waits for the answer until ctx ends. It makes a
// session if there is none, which the time then includes.
//
// In netstack mode it is an ICMP echo, which whoever has the address answers. In TUN mode, where programs may have
// ICMP of the host, it is a question to the adit of the remote that owns the address, which needs no privilege and no host
// that answers.
//
// Errors are as of DialContext: a *net.DNSError for a name nobody has, a *net.OpError around syscall.ENETUNREACH for an address
// nobody has, or around the context's when no answer came.
func (p *Peer) Ping(ctx context.Context, host string) (Echo, error) {
	to, err := netip.ParseAddr(host)
	if err != nil {
		addrs, err := p.LookupHost(ctx, host)
		if err != nil {
			return Echo{}, err
		}
		to = addrs[0]
	}
	return ping(ctx, p.engine, p.device, p.own(), to.Unmap())
}

// Ping is Peer.Ping. A relay that is no peer can ask its members by it too.
func (r *Relay) Ping(ctx context.Context, host string) (Echo, error) {
	e := r.relay.Engine()
	to, err := netip.ParseAddr(host)
	if err != nil {
		addrs, err := lookupMember(ctx, e, host)
		if err != nil {
			return Echo{}, err
		}
		to = addrs[0]
	}
	return ping(ctx, e, r.device, hosts(r.cfg.Addresses), to.Unmap())
}

func ping(ctx context.Context, e *engine.Engine, d device, own []netip.Addr, to netip.Addr) (Echo, error) {
	start := time.Now()
	echo := Echo{Address: to}
	fail := func(err error) (Echo, error) {
		return Echo{}, &net.OpError{Op: "ping", Addr: &net.IPAddr{IP: to.AsSlice()}, Err: err}
	}
	for _, a := range own {
		if a == to {
			echo.PublicKey, echo.Self, echo.Time = e.PublicKey(), true, time.Since(start)
			return echo, nil
		}
	}
	r, err := e.Owner(ctx, to)
	switch {
	case errors.Is(err, engine.ErrNoMember):
		return fail(fmt.Errorf("no member of the overlay has this address: %w", syscall.ENETUNREACH))
	case err != nil:
		return fail(err)
	}
	if d.stack != nil {
		if echo.Time, err = d.stack.Ping(ctx, to); err != nil {
			return Echo{}, err
		}
		st := r.Status()
		echo.Endpoint, echo.Via = st.Endpoint, st.Via
	} else {
		pong, err := e.Ping(ctx, to)
		if err != nil {
			return fail(err)
		}
		echo.Time, echo.Endpoint, echo.Via = pong.Time, pong.Endpoint, pong.Via
	}
	echo.Name, echo.PublicKey = r.Name(), r.PublicKey()
	return echo, nil
}
