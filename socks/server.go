// Package socks is a local proxy in front of a dial function. One listener
// speaks SOCKS5 (RFC 1928, with the password method of RFC 1929), HTTP CONNECT
// and plain HTTP forwarding (RFC 9110); the first byte a client sends tells
// which. The package does not know what lies behind the dial function: names
// are handed to it unresolved, and the error it returns becomes the reply.
//
//	first byte    front
//	0x05          SOCKS5
//	'A'..'Z'      HTTP: CONNECT host:port, or GET http://host/…
//	other         closed at once (SOCKS4, TLS, noise)
//
// A SOCKS5 conversation, client to the left:
//
//	05 n methods…          →
//	                       ←  05 method          00 none, 02 password, ff no
//	01 n name… n passwd…   →                     only after method 02
//	                       ←  01 status          00 well, 01 wrong, and closed
//	05 01 00 type addr port →                    type 1 IPv4, 3 n name…, 4 IPv6
//	                       ←  05 reply 00 type addr port
//	bytes                  ↔  bytes
//
// # Replies
//
// The client is told "connected" only after the dial succeeded, and otherwise
// the true reason. Errors are recognised with errors.Is, never by their text:
//
//	error of Dial or Allow                         SOCKS5   HTTP
//	ErrNotAllowed, os.ErrPermission, any of Allow  02       403
//	ENETUNREACH, ENETDOWN                          03       502
//	EHOSTUNREACH, EHOSTDOWN, name not found        04       502
//	ECONNREFUSED                                   05       502
//	ETIMEDOUT, a deadline, DialTimeout             06       504
//	EAFNOSUPPORT                                   08       502
//	any other                                      01       502
//
// RFC 1928 has no reply for a dial that nobody answered. 06 ("TTL expired") is
// what Tor and Dante send for it, and it keeps silence apart from a router
// that said there is no way (04). BIND and UDP ASSOCIATE are answered with 07.
//
// # The library beneath
//
// Negotiation is done by github.com/armon/go-socks5: choice of method,
// password, request, and the refusal of commands it does not know. It is left
// there, and not allowed to dial, because what it does next falls short: it
// guesses the reply from the text of the error, assumes that the dialled
// connection has a *net.TCPAddr, bounds nothing by time, and copies with one
// buffer held for each direction of each idle connection. The file socks5.go
// says how the connection is taken back from it.
package socks

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

// What the zero values of Server's fields mean.
const (
	DefaultHandshakeTimeout  = 10 * time.Second
	DefaultDialTimeout       = 30 * time.Second
	DefaultMaxConns          = 16384
	DefaultMaxConnsPerClient = 1024

	// DefaultIdleTimeout is the shortest that RFC 5382 (REQ-5) allows a
	// middlebox for an established connection.
	DefaultIdleTimeout = 2*time.Hour + 4*time.Minute
)

// sniffBuffer holds what a client sent before it is known what it speaks, and
// a SOCKS5 conversation up to its request.
const sniffBuffer = 512

// Server accepts clients from one or more listeners and connects them through
// Dial. Its exported fields are set before the first Serve and not changed
// after it. Only Dial has to be set.
type Server struct {
	// Dial opens a connection for a client. The network is "tcp"; the address
	// is "host:port" as net.JoinHostPort writes it, where host is an IP address
	// or a name just as the client sent it.
	// It must return soon after its context is done: Close waits for it.
	//
	// A connection that has CloseWrite keeps half-close: the client's end of
	// stream is passed on, and the answer still arrives. One without it is
	// closed altogether when the client ends its stream. SetLinger, where a
	// connection has it, is used to pass a failure on as a reset.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Username and Password, when Password is not empty, are asked of every
	// client before anything else: by SOCKS5 method 02, or by HTTP Basic proxy
	// authentication with each request. Without a password, Serve refuses any
	// TCP listener that is not on loopback.
	Username, Password string

	// Allow, if set, is asked for each SOCKS5 request and each HTTP request,
	// before Dial. Any error refuses.
	Allow func(ctx context.Context, address string) error

	// HandshakeTimeout bounds how long a client may take to say what it
	// wants: for SOCKS5 from being accepted to the end of its request; for
	// HTTP from being accepted to the first byte, and again from there to the
	// end of each request's header.
	HandshakeTimeout time.Duration

	// DialTimeout bounds each call of Dial.
	DialTimeout time.Duration

	// IdleTimeout ends a connection over which nothing moved in either
	// direction for so long. Negative: never.
	IdleTimeout time.Duration

	// MaxConns bounds the clients connected at one time; one too many is
	// closed at once.
	MaxConns int

	// MaxConnsPerClient bounds them for one client address (IPv6: one /64).
	// It does not count clients on loopback, who all share an address.
	MaxConnsPerClient int

	// MaxDialsPerHost bounds the dials in progress to one host, by the name or
	// address the client gave. A host that does not answer would otherwise
	// hold all of MaxConns for DialTimeout; beyond it a dial fails at once.
	// Zero: half of MaxConns.
	MaxDialsPerHost int

	// Logger gets a warning now and then about wrong passwords, and at debug
	// level why connections failed. It never gets a password. Nil: no log.
	Logger *slog.Logger

	begin    sync.Once
	ctx      context.Context // ends with Close; parent of every dial
	cancel   context.CancelFunc
	logger   *slog.Logger
	conns    connSet
	dials    dialCount
	http     *httpFront
	bursts   burstBuffers
	counters counters

	warnPassword rate.Sometimes
	warnAccept   rate.Sometimes
}

// prepare makes the parts that need the configuration. It starts nothing.
func (s *Server) prepare() {
	s.begin.Do(func() {
		s.ctx, s.cancel = context.WithCancel(context.Background())
		s.logger = s.Logger
		if s.logger == nil {
			s.logger = slog.New(slog.DiscardHandler)
		}
		s.conns.max = cmp.Or(s.MaxConns, DefaultMaxConns)
		s.conns.maxPerClient = cmp.Or(s.MaxConnsPerClient, DefaultMaxConnsPerClient)
		s.dials.max = cmp.Or(s.MaxDialsPerHost, max(1, s.conns.max/2))
		s.bursts.init()
		s.warnPassword.Interval = 10 * time.Second
		s.warnAccept.Interval = 10 * time.Second
		s.http = newHTTPFront(s)
	})
}

func (s *Server) handshakeTimeout() time.Duration {
	return cmp.Or(s.HandshakeTimeout, DefaultHandshakeTimeout)
}

func (s *Server) idleTimeout() time.Duration {
	return cmp.Or(s.IdleTimeout, DefaultIdleTimeout)
}

// Serve accepts clients from l until l fails or Close is called, and closes l.
// After Close the error is net.ErrClosed. When l fails by itself its error is
// returned, and the clients already accepted are served on. A TCP listener
// that CheckListen would refuse is refused here too. Serve may be called for
// several listeners.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	s.prepare()
	if s.Dial == nil {
		return errors.New("socks: Server.Dial is not set")
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		if err := CheckListen(a.String(), s.Username, s.Password); err != nil {
			return err
		}
	}
	if !s.conns.addListener(l) {
		return net.ErrClosed
	}
	defer s.conns.removeListener(l)
	s.http.start()
	return s.accept(l)
}

func (s *Server) accept(l net.Listener) error {
	var pause time.Duration
	for {
		conn, err := l.Accept()
		if err == nil {
			pause = 0
			s.admit(conn)
			continue
		}
		if s.ctx.Err() != nil {
			return net.ErrClosed
		}
		if !passing(err) {
			return fmt.Errorf("accept proxy client: %w", err)
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.warnAccept.Do(func() {
			s.logger.Warn("accepting proxy clients is held up; if it is for want of files, raise their limit (ulimit -n)", "err", err)
		})
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
			return net.ErrClosed
		}
	}
}

// passing says whether a listener that failed to accept is still good: the
// process or the system was short of descriptors or memory.
func passing(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary() ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// admit starts serving a client if the limits let it in.
func (s *Server) admit(conn net.Conn) {
	s.counters.accepted.Add(1)
	c, refused := s.conns.admit(conn)
	switch refused {
	case admitted:
		go s.serveClient(c)
		return
	case overMaxConns:
		s.counters.overMaxConns.Add(1)
	case overMaxPerClient:
		s.counters.overMaxPerClient.Add(1)
	}
	conn.Close()
}

// serveClient finds out what the client speaks, and serves it.
func (s *Server) serveClient(c *client) {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		// A client that vanished without a word would keep its place until
		// IdleTimeout. An error leaves the system's default, which will do.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{
			Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4,
		})
	}
	_ = c.SetDeadline(time.Now().Add(s.handshakeTimeout()))
	r := bufio.NewReaderSize(c.Conn, sniffBuffer)
	first, err := r.Peek(1)
	switch {
	case err != nil:
		s.counters.handshakeFailed(err)
		c.release()
	case first[0] == socksVersion:
		s.serveSOCKS(c, r) // releases c
	case 'A' <= first[0] && first[0] <= 'Z':
		s.http.serve(c, buffered(r)) // releases c
	default:
		s.counters.unknownProtocol.Add(1)
		c.release()
	}
}

// buffered returns a copy of what r has read ahead.
func buffered(r *bufio.Reader) []byte {
	if r.Buffered() == 0 {
		return nil
	}
	ahead, _ := r.Peek(r.Buffered())
	return append([]byte(nil), ahead...)
}

// permit refuses a destination that is malformed or that Allow refuses.
func (s *Server) permit(ctx context.Context, address string) error {
	if err := checkDestination(address); err != nil {
		s.counters.malformed.Add(1)
		return err
	}
	if s.Allow == nil {
		return nil
	}
	if err := s.Allow(ctx, address); err != nil {
		s.counters.denied.Add(1)
		return fmt.Errorf("%w: %w", ErrNotAllowed, err)
	}
	return nil
}

// dial calls Dial under DialTimeout. It ends with Close, whether ctx does or
// not, and counts what it came to.
func (s *Server) dial(ctx context.Context, address string) (net.Conn, error) {
	host := hostOf(address)
	if !s.dials.begin(host) {
		s.counters.dialsLimited.Add(1)
		return nil, errTooManyDials
	}
	defer s.dials.end(host)
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(s.DialTimeout, DefaultDialTimeout))
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()

	conn, err := s.Dial(ctx, "tcp", address)
	if err == nil && conn == nil {
		err = errors.New("the dial function returned neither a connection nor an error")
	}
	if err != nil {
		// A dial function may report the end of its context in its own
		// words; the reply goes by the context's.
		if end := ctx.Err(); end != nil && !errors.Is(err, end) {
			err = fmt.Errorf("%w: %w", end, err)
		}
		s.counters.dials[replyTo(err)].Add(1)
		s.logger.Debug("proxy dial failed", "address", address, "err", err)
		return nil, err
	}
	s.counters.dials[succeeded].Add(1)
	return conn, nil
}

// wrongPassword counts and, now and then, logs.
func (s *Server) wrongPassword(client net.Addr) {
	n := s.counters.authFailed.Add(1)
	s.warnPassword.Do(func() {
		s.logger.Warn("proxy client without the right password", "client", client.String(), "so_far", n)
	})
}

// Close ends the listeners, cancels the dials, resets the connections of all
// clients, and returns when they are served no more. It may be called at any
// time and more than once; its error is always nil.
func (s *Server) Close() error {
	s.prepare()
	s.cancel()
	s.http.close()
	s.conns.close()
	return nil
}
