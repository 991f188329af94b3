package peer

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"

	"github.com/adit-overlay/adit/engine"
)

// Suffix makes a name the overlay's alone: "web.adit" is the member called web and nothing else.
const Suffix = ".adit"

// Dial connects to an address on the overlay. It is DialContext without a limit.
func (p *Peer) Dial(network, address string) (net.Conn, error) {
	return p.DialContext(context.Background(), network, address)
}

// DialContext connects to an address on the overlay. The network is tcp, tcp4, tcp6, udp, udp4 or
// udp6; the address is host:port, where host is an overlay address, NAME.adit, a member's bare name, or another
// name, which the system resolves. The first dial to a remote waits for the session with it.
//
// Errors are those of package net: a *net.OpError around syscall.ECONNREFUSED, ENETUNREACH (nobody has the
// address), EHOSTUNREACH (its owner does not answer) and so on, or around a *net.DNSError for a name
// nobody has.
func (p *Peer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	switch network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
	default:
		return fail(net.UnknownNetworkError(network))
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fail(err)
	}
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return p.device.DialContext(ctx, network, address)
	}
	addrs, err := p.LookupHost(ctx, host)
	if err != nil {
		return fail(err)
	}
	var first error
	for _, a := range addrs {
		if strings.HasSuffix(network, "4") && !a.Is4() || strings.HasSuffix(network, "6") && !a.Is6() {
			continue
		}
		c, err := p.device.DialContext(ctx, network, net.JoinHostPort(a.String(), port))
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	if first == nil {
		return fail(&net.AddrError{Err: "no suitable address", Addr: host})
	}
	return nil, first
}

// LookupHost returns the addresses of NAME.adit, of a member's bare name, or of another name as the system
// resolves it. Case plays no part. The error is a *net.DNSError, the context's, or net.ErrClosed.
func (p *Peer) LookupHost(ctx context.Context, host string) ([]netip.Addr, error) {
	if p.isClosed() {
		return nil, net.ErrClosed
	}
	name, ours := memberName(host)
	if name == p.cfg.Name && name != "" {
		return p.own(), nil
	}
	if ours || !strings.Contains(name, ".") {
		addrs, err := lookupMember(ctx, p.engine, host)
		switch {
		case err == nil:
			return addrs, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case p.isClosed():
			return nil, net.ErrClosed
		case ours:
			return nil, err
		}
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i] = found[i].Unmap()
	}
	return found, nil
}

// memberName is the name that a host would have as a member, and whether it can be nothing else.
func memberName(host string) (name string, ours bool) {
	return strings.CutSuffix(strings.ToLower(strings.TrimSuffix(host, ".")), Suffix)
}

// lookupMember returns the addresses of a member. The error is a *net.DNSError or the context's.
func lookupMember(ctx context.Context, e *engine.Engine, host string) ([]netip.Addr, error) {
	name, _ := memberName(host)
	addrs, err := e.LookupName(ctx, name)
	switch {
	case err == nil || ctx.Err() != nil:
		return addrs, err
	case errors.Is(err, engine.ErrNoMember):
		return nil, &net.DNSError{Err: "no member of the overlay has this name", Name: host, IsNotFound: true}
	}
	return nil, &net.DNSError{Err: err.Error(), Name: host, IsTemporary: true}
}

// own are the peer's addresses by themselves.
func (p *Peer) own() []netip.Addr { return hosts(p.cfg.Addresses) }

func hosts(prefixes []netip.Prefix) []netip.Addr {
	all := make([]netip.Addr, len(prefixes))
	for i, a := range prefixes {
		all[i] = a.Addr()
	}
	return all
}

// Listen announces on the peer's overlay addresses: tcp, tcp4 or tcp6, and host:port, where host is one
// of them, or empty for all. The host's other addresses are never listened on.
func (p *Peer) Listen(network, address string) (net.Listener, error) {
	return p.device.Listen(network, address)
}

// ListenPacket opens a UDP socket on the peer's overlay addresses: udp, udp4 or udp6, and host:port as
// for Listen.
func (p *Peer) ListenPacket(network, address string) (net.PacketConn, error) {
	return p.device.ListenPacket(network, address)
}
