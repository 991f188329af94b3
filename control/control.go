// Package control is the local API of a running adit: JSON over HTTP on a Unix socket that its owner and root
// alone may use. It knows no overlay: what it tells and what it does are functions it is given.
//
//	GET  /v1/status                                      what API.Status returns
//	POST /v1/ping   {"host": "web.adit", "timeout_ns": …}   what API.Ping returns
//
// An error is {"error": "why"} with a status that is not 200.
//
// Nobody else gets in. The socket has mode 0600 in a folder that others cannot write; where the system tells who is at
// the other end (Linux, macOS, FreeBSD) that is asked, and other users are cut off before they have said a word. A
// browser cannot reach a Unix socket; should something lead it here, it is refused by its Host and its Origin. Requests,
// connections and the time they take are bounded.
package control

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Host is what requests bear as their Host.
const Host = "adit"

// Bounds on who uses the socket. Status and ping are asked for by people and by monitoring, a few at a time.
const (
	maxConns   = 16
	maxHeader  = 4 << 10
	maxRequest = 4 << 10 // its body

	requestTime = 5 * time.Second  // to say what is wanted, from the connection on
	answerTime  = 10 * time.Second // to take the answer, once it is there

	// DefaultPingTimeout is how long an echo is waited for unless the request says otherwise, and MaxPingTimeout the most it
	// can say.
	DefaultPingTimeout = 5 * time.Second
	MaxPingTimeout     = time.Minute
)

// API is what can be asked for. Both functions may be called by several goroutines.
type API struct {
	// Status returns what is marshalled as the status. It is given the server's own counts.
	Status func(Stats) any

	// Ping sends one echo to host, a name or an overlay address, waits for its answer until ctx ends, and returns what is
	// marshalled as the answer.
	Ping func(ctx context.Context, host string) (any, error)
}

// Stats counts what became of those who connected.
type Stats struct {
	Connections     uint64 `json:"connections"`
	Requests        uint64 `json:"requests"`         // served
	RefusedUsers    uint64 `json:"refused_users"`    // connections of other users
	RefusedRequests uint64 `json:"refused_requests"` // with a foreign Host, an Origin, or not in the API
	OverLimit       uint64 `json:"over_limit"`       // connections beyond the most at a time
}

type counters struct {
	connections, requests, refusedUsers, refusedRequests, overLimit atomic.Uint64
}

// A Server serves one socket from Serve to Close.
type Server struct {
	api      API
	log      *slog.Logger
	http     http.Server
	counters counters

	mu      sync.Mutex
	closed  bool
	serving sync.WaitGroup // the accepting goroutine and the handlers
}

// Serve opens the socket at path and serves it. A socket there whose process has died is replaced; one that somebody
// answers at is left alone, and the error is then ErrInUse. The folder is made if it is not there.
func Serve(path string, api API, log *slog.Logger) (*Server, error) {
	l, err := bind(path)
	if err != nil {
		return nil, err
	}
	s := newServer(api, log)
	s.serve(s.gate(l, checkUser))
	return s, nil
}

func newServer(api API, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{api: api, log: log}
	s.http = http.Server{
		Handler:           s,
		ReadHeaderTimeout: requestTime,
		ReadTimeout:       requestTime,
		WriteTimeout:      answerTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // anybody who connects can cause a line
	}
	s.http.SetKeepAlivesEnabled(false)
	return s
}

func (s *Server) serve(l net.Listener) {
	s.serving.Go(func() { s.http.Serve(l) })
}

// Stats returns the counts at this moment.
func (s *Server) Stats() Stats {
	c := &s.counters
	return Stats{
		Connections: c.connections.Load(), Requests: c.requests.Load(), RefusedUsers: c.refusedUsers.Load(),
		RefusedRequests: c.refusedRequests.Load(), OverLimit: c.overLimit.Load(),
	}
}

// Close removes the socket, cuts all connections and returns when nobody is served any more.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	err := s.http.Close()
	s.serving.Wait()
	return err
}

// begin counts a handler among what Close waits for.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.serving.Add(1)
	return true
}
