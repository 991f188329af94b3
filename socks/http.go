package socks

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"
)

const (
	maxHeader = 16 << 10

	// keepAliveIdle is how long a client may wait between two HTTP requests.
	keepAliveIdle = 2 * time.Minute

	// maxIdleUpstream bounds the connections kept for one client between its
	// plain requests.
	maxIdleUpstream = 4
)

// httpFront serves the clients that speak HTTP. It is the listener of a
// net/http server, to which it passes the clients that were found to speak it.
type httpFront struct {
	s       *Server
	server  http.Server
	forward httputil.ReverseProxy
	clients chan *httpClient
	once    sync.Once
}

// httpClient is the connection net/http sees. From serve on, it owns a client
// and releases it when net/http, or the relay of a CONNECT, is done with it.
type httpClient struct {
	*client
	idle *idleWatch

	// Only the goroutine that reads touches these.
	early   []byte // read before it was known that the client speaks HTTP
	readErr error

	// Only the connection's goroutine of net/http touches these: it serves
	// the requests of an HTTP/1 connection one after the other.
	requests  int
	hijacked  bool
	relayed   bool            // the relay releases the client
	transport *http.Transport // nil before the first plain request
}

type httpClientKey struct{}

func newHTTPFront(s *Server) *httpFront {
	f := &httpFront{s: s, clients: make(chan *httpClient)}
	errorLog := slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	f.server = http.Server{
		Handler:                      f,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            s.handshakeTimeout(),
		IdleTimeout:                  keepAliveIdle,
		MaxHeaderBytes:               maxHeader,
		ErrorLog:                     errorLog,
		Protocols:                    protocols,
		BaseContext:                  func(net.Listener) context.Context { return s.ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, httpClientKey{}, c)
		},
		ConnState: func(c net.Conn, state http.ConnState) { f.connState(c.(*httpClient), state) },
	}
	f.forward = httputil.ReverseProxy{
		Rewrite:       rewrite,
		Transport:     roundTripper(roundTrip),
		FlushInterval: -1, // the proxy does not know what is urgent
		ErrorLog:      errorLog,
		ErrorHandler:  func(w http.ResponseWriter, r *http.Request, err error) { refuse(w, err) },
	}
	return f
}

// start begins to serve; calls after the first do nothing.
func (f *httpFront) start() {
	f.once.Do(func() {
		if f.s.conns.enter() {
			go f.run()
		}
	})
}

func (f *httpFront) run() {
	defer f.s.conns.serving.Done()
	_ = f.server.Serve(f) // ends when Accept does, with Close
}

// Accept, Close and Addr make the front a listener of net/http.
func (f *httpFront) Accept() (net.Conn, error) {
	select {
	case c := <-f.clients:
		return c, nil
	case <-f.s.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (f *httpFront) Close() error   { return nil }
func (f *httpFront) Addr() net.Addr { return &net.TCPAddr{} }

// close ends what net/http serves, except connections it gave away.
func (f *httpFront) close() { _ = f.server.Close() }

// serve hands a client over to net/http.
func (f *httpFront) serve(c *client, early []byte) {
	h := &httpClient{client: c, early: early}
	h.idle = watchIdle(f.s.idleTimeout(), func() {
		f.s.counters.idle.Add(1)
		reset(c.Conn)
	})
	_ = c.SetDeadline(time.Time{}) // net/http sets its own
	select {
	case f.clients <- h:
	case <-f.s.ctx.Done():
		h.end()
	}
}

// end releases the client and what was opened for it.
func (h *httpClient) end() {
	h.leave()
	h.release()
}

// leave ends what HTTP needed beside the client's connection.
func (h *httpClient) leave() {
	h.idle.stop()
	if h.transport != nil {
		h.transport.CloseIdleConnections()
	}
}

func (h *httpClient) Read(p []byte) (n int, err error) {
	h.idle.touch()
	if len(h.early) > 0 {
		n = copy(p, h.early)
		if h.early = h.early[n:]; len(h.early) == 0 {
			h.early = nil
		}
		return n, nil
	}
	n, err = h.Conn.Read(p)
	h.readErr = err
	return n, err
}

func (h *httpClient) Write(p []byte) (int, error) {
	h.idle.touch()
	return h.Conn.Write(p)
}

// CloseWrite lets net/http end a connection so that its last answer arrives.
func (h *httpClient) CloseWrite() error {
	if cw, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// connState follows what net/http does with a client.
func (f *httpFront) connState(h *httpClient, state http.ConnState) {
	switch state {
	case http.StateHijacked:
		h.hijacked = true
	case http.StateClosed:
		switch {
		case h.requests > 0:
		case h.readErr != nil:
			f.s.counters.handshakeFailed(h.readErr)
		default:
			f.s.counters.malformed.Add(1)
		}
		h.end()
	}
}

// ServeHTTP answers one request.
func (f *httpFront) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := r.Context().Value(httpClientKey{}).(*httpClient)
	h.requests++
	f.s.counters.httpRequests.Add(1)
	defer func() {
		if h.hijacked && !h.relayed { // an upgrade that the forwarder carried
			h.end()
		}
	}()
	switch {
	case !f.authenticated(w, r):
	case r.Method == http.MethodConnect:
		f.connect(h, w, r)
	case r.URL.Scheme == "http" && r.URL.Host != "":
		f.forwardPlain(h, w, r)
	default:
		f.s.counters.malformed.Add(1)
		say(w, http.StatusBadRequest, "this is a proxy: use CONNECT host:port, or a request for http://host/")
	}
}

// authenticated asks for the password where one is set (RFC 9110 section
// 11.7), with every request. A wrong one ends the connection.
func (f *httpFront) authenticated(w http.ResponseWriter, r *http.Request) bool {
	if f.s.Password == "" {
		return true
	}
	given := r.Header.Get("Proxy-Authorization")
	if name, word, ok := parseBasic(given); ok && f.s.authorized(name, word) {
		return true
	}
	if given != "" {
		f.s.wrongPassword(remoteAddr(r))
		w.Header().Set("Connection", "close")
	}
	w.Header().Set("Proxy-Authenticate", `Basic realm="proxy", charset="UTF-8"`)
	say(w, http.StatusProxyAuthRequired, "this proxy asks for a username and password")
	return false
}

func remoteAddr(r *http.Request) net.Addr {
	return r.Context().Value(httpClientKey{}).(*httpClient).RemoteAddr()
}

// parseBasic reads credentials as RFC 7617 section 2 writes them.
func parseBasic(header string) (name, word string, ok bool) {
	scheme, encoded, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", false
	}
	plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(plain), ":")
}

// connect makes the client's connection a tunnel (RFC 9110 section 9.3.6).
func (f *httpFront) connect(h *httpClient, w http.ResponseWriter, r *http.Request) {
	conn, err := f.s.open(r.Context(), r.URL.Host)
	if err != nil {
		refuse(w, err)
		return
	}
	_, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		f.s.counters.broken.Add(1)
		conn.Close()
		return
	}
	h.relayed = true
	h.leave()
	// A goroutine of its own lets net/http's end, and its buffers go. The
	// client is released only after it, which is what Close waits for.
	go f.tunnel(h, buffered(rw.Reader), conn)
}

func (f *httpFront) tunnel(h *httpClient, early []byte, conn *target) {
	_ = h.SetDeadline(time.Now().Add(f.s.handshakeTimeout()))
	if _, err := h.Conn.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil {
		f.s.counters.broken.Add(1)
		reset(conn.Conn)
		conn.Close()
		h.release()
		return
	}
	_ = h.SetDeadline(time.Time{})
	f.s.relay(h.client, early, conn) // releases it
}

// forwardPlain passes on a request in absolute form (RFC 9112 section 3.2.2).
// Connections to servers belong to one client's connection and end with it;
// so no client gets one that another has logged in over.
func (f *httpFront) forwardPlain(h *httpClient, w http.ResponseWriter, r *http.Request) {
	address := r.URL.Host
	if r.URL.Port() == "" {
		address = net.JoinHostPort(r.URL.Hostname(), "80")
	}
	if err := f.s.permit(r.Context(), address); err != nil {
		refuse(w, err)
		return
	}
	if h.transport == nil {
		h.transport = &http.Transport{
			DialContext:            f.dialPlain,
			DisableCompression:     true,
			MaxIdleConns:           maxIdleUpstream,
			IdleConnTimeout:        keepAliveIdle,
			MaxResponseHeaderBytes: 256 << 10,
		}
	}
	f.forward.ServeHTTP(w, r)
}

func (f *httpFront) dialPlain(ctx context.Context, _, address string) (net.Conn, error) {
	// net/http dials in a goroutine of its own, which may outlive the client.
	if !f.s.conns.enter() {
		return nil, net.ErrClosed
	}
	defer f.s.conns.serving.Done()
	conn, err := f.s.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	return f.s.conns.hold(conn)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// roundTrip sends a request over the connections of the client that made it.
func roundTrip(r *http.Request) (*http.Response, error) {
	return r.Context().Value(httpClientKey{}).(*httpClient).transport.RoundTrip(r)
}

// rewrite undoes what httputil.ReverseProxy does for the sake of servers that
// it stands before. This proxy stands before clients: what is not hop-by-hop
// passes unchanged. Via is added as RFC 9110 section 7.6.3 demands.
func rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.RawQuery = r.In.URL.RawQuery
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v, ok := r.In.Header[name]; ok {
			r.Out.Header[name] = v
		}
	}
	r.Out.Header.Add("Via", fmt.Sprintf("%d.%d proxy", r.In.ProtoMajor, r.In.ProtoMinor))
}

// refuse answers a request whose destination could not be reached.
func refuse(w http.ResponseWriter, err error) {
	if errors.Is(err, errBadDestination) {
		say(w, http.StatusBadRequest, "the request names no host and port to connect to")
		return
	}
	r := replyTo(err)
	say(w, r.status(), r.String())
}

// say answers with a line of text.
func say(w http.ResponseWriter, status int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	fmt.Fprintln(w, line)
}
