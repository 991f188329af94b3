package socks

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/netip"
	"time"

	socks5 "github.com/armon/go-socks5"
)

const (
	socksVersion    = 0x05
	passwordVersion = 0x01 // RFC 1929 section 2
	noMethod        = 0xff // RFC 1928 section 3
)

const (
	// partingTime and partingBytes bound how long a refused client is listened
	// to, so that it can read the refusal.
	partingTime  = time.Second
	partingBytes = 64 << 10
)

// serveSOCKS serves one SOCKS5 client up to its connection, which releases it
// in the end, or releases it itself. The handshake's deadline is already set.
func (s *Server) serveSOCKS(c *client, r *bufio.Reader) {
	conn := s.connectSOCKS(c, r)
	if conn == nil {
		c.release()
		return
	}
	s.relay(c, buffered(r), conn)
}

// connectSOCKS has the conversation, and returns what was dialled, or nil when
// the client has been told why there is nothing.
func (s *Server) connectSOCKS(c *client, r *bufio.Reader) *target {
	destination, err := s.negotiate(c, r)
	if err != nil {
		s.logger.Debug("SOCKS5 handshake failed", "client", c.RemoteAddr(), "err", err)
		return nil
	}
	conn, err := s.open(s.ctx, destination)
	_ = c.SetDeadline(time.Now().Add(s.handshakeTimeout()))
	if err != nil {
		if _, err := c.Write(appendReply(nil, replyTo(err), netip.AddrPort{})); err == nil {
			part(c.Conn)
		}
		return nil
	}
	if _, err := c.Write(appendReply(nil, succeeded, boundAddress(conn))); err != nil {
		s.counters.broken.Add(1)
		reset(conn.Conn)
		conn.Close()
		return nil
	}
	_ = c.SetDeadline(time.Time{})
	return conn
}

// open asks the rules, dials, and holds the connection so that Close ends it.
func (s *Server) open(ctx context.Context, address string) (*target, error) {
	if err := s.permit(ctx, address); err != nil {
		return nil, err
	}
	conn, err := s.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	return s.conns.hold(conn)
}

// negotiate lets the library talk to the client up to its request, and returns
// the destination of a CONNECT. After an error the client has had its answer,
// if one is due, and the error has been counted.
func (s *Server) negotiate(c *client, r *bufio.Reader) (destination string, err error) {
	n := &negotiation{Conn: c.Conn, r: r, s: s}
	config := &socks5.Config{
		Resolver: n,
		Dial:     n.dial,
		Logger:   log.New(io.Discard, "", 0), // it returns the same errors
	}
	if s.Password != "" {
		config.Credentials = n
	}
	library, err := socks5.New(config)
	if err != nil {
		return "", err
	}
	err = library.ServeConn(n)
	if n.destination != "" {
		return n.destination, nil
	}
	if err == nil {
		err = errors.New("command not supported") // BIND and UDP ASSOCIATE
	}
	n.fail()
	return "", err
}

// negotiation is the connection that the library sees, and its hooks. It
// differs from the client's connection in three ways, which together give the
// connection back once the request is known.
//
// Read gives one byte at a time: the library wraps a bufio.Reader of its own
// around it, and would otherwise swallow the first bytes that follow the
// request. What is read ahead stays in r.
//
// The dial hook does not dial. It takes the destination down and fails, and
// the reply the library then makes up is dropped, as is its Close.
type negotiation struct {
	net.Conn
	r           *bufio.Reader
	s           *Server
	destination string // set by the dial hook
	answer      []byte // the last message to the client
	failed      error  // of reading or writing
}

var errHandedOver = errors.New("request handed over")

func (n *negotiation) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := n.r.ReadByte()
	if err != nil {
		n.failed = err
		return 0, err
	}
	p[0] = b
	return 1, nil
}

func (n *negotiation) Write(p []byte) (int, error) {
	if n.destination != "" {
		return len(p), nil
	}
	n.answer = append(n.answer[:0], p...)
	written, err := n.Conn.Write(p)
	if err != nil {
		n.failed = err
	}
	return written, err
}

func (n *negotiation) Close() error { return nil }

// Valid is the library's hook for a name and password.
func (n *negotiation) Valid(username, password string) bool {
	return n.s.authorized(username, password)
}

// Resolve is the library's hook for names. Leaving the address nil makes it
// dial the name itself.
func (n *negotiation) Resolve(ctx context.Context, _ string) (context.Context, net.IP, error) {
	return ctx, nil, nil
}

// dial is the library's hook for CONNECT.
func (n *negotiation) dial(_ context.Context, _, address string) (net.Conn, error) {
	n.destination = address
	return nil, errHandedOver
}

// fail counts a negotiation that came to no request, going by what the client
// was last told, and lets the client read it.
func (n *negotiation) fail() {
	a := n.answer
	switch {
	case n.failed != nil:
		n.s.counters.handshakeFailed(n.failed)
		return
	case len(a) == 2 && a[0] == socksVersion && a[1] == noMethod,
		len(a) == 2 && a[0] == passwordVersion && a[1] != 0:
		n.s.wrongPassword(n.RemoteAddr())
	case len(a) > 2: // a reply to a request
		n.s.counters.unsupported.Add(1)
	default:
		n.s.counters.malformed.Add(1)
		return
	}
	part(n.Conn)
}

// appendReply appends a reply (RFC 1928 section 6) to b. An invalid address is
// written as 0.0.0.0:0.
func appendReply(b []byte, r reply, bound netip.AddrPort) []byte {
	const ipv4, ipv6 = 1, 4
	addr := bound.Addr().Unmap()
	b = append(b, socksVersion, byte(r), 0)
	switch {
	case addr.Is4():
		b = append(append(b, ipv4), addr.AsSlice()...)
	case addr.Is6():
		b = append(append(b, ipv6), addr.AsSlice()...)
	default:
		b = append(b, ipv4, 0, 0, 0, 0)
	}
	return append(b, byte(bound.Port()>>8), byte(bound.Port()))
}

// boundAddress is the BND.ADDR and BND.PORT of a connection, invalid if it has
// none that a reply can carry.
func boundAddress(conn net.Conn) netip.AddrPort {
	if a, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// part lets a client that has been refused read why. To close while bytes of
// its own are unread would reset the connection, and the reset can overtake
// the reply.
func part(conn net.Conn) {
	cw, ok := conn.(interface{ CloseWrite() error })
	if !ok || cw.CloseWrite() != nil {
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(partingTime))
	_, _ = io.Copy(io.Discard, io.LimitReader(conn, partingBytes))
}
