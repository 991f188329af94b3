package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// pingRequest is the body of a request for an echo.
type pingRequest struct {
	Host    string        `json:"host"`
	Timeout time.Duration `json:"timeout_ns,omitempty"`
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.begin() {
		return
	}
	defer s.serving.Done()
	if code, why := judge(r); code != http.StatusOK {
		s.counters.refusedRequests.Add(1)
		s.log.Debug("control: request refused", "method", r.Method, "path", r.URL.Path, "because", why)
		reply(w, code, failure{why})
		return
	}
	s.counters.requests.Add(1)
	switch r.URL.Path {
	case statusPath:
		reply(w, http.StatusOK, s.api.Status(s.Stats()))
	case pingPath:
		s.ping(w, r)
	}
}

const (
	statusPath = "/v1/status"
	pingPath   = "/v1/ping"
)

// methods are those of the API, by path.
var methods = map[string]string{statusPath: http.MethodGet, pingPath: http.MethodPost}

// judge says whether a request is one of the API, by a program that means it. Browsers send an Origin with what a page
// has them send, and the Host of the page's address.
func judge(r *http.Request) (code int, why string) {
	method, known := methods[r.URL.Path]
	switch {
	case r.Host != Host:
		return http.StatusForbidden, "the Host must be " + Host
	case len(r.Header.Values("Origin")) > 0:
		return http.StatusForbidden, "web pages may not use this"
	case !known:
		return http.StatusNotFound, "there are " + statusPath + " and " + pingPath
	case r.Method != method:
		return http.StatusMethodNotAllowed, "want " + method
	}
	return http.StatusOK, ""
}

func (s *Server) ping(w http.ResponseWriter, r *http.Request) {
	var q pingRequest
	body := http.MaxBytesReader(w, r.Body, maxRequest)
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	err := d.Decode(&q)
	if err == nil {
		_, err = io.Copy(io.Discard, body) // to its end: from there on the server notices when the client is gone
	}
	if err != nil || q.Host == "" {
		reply(w, http.StatusBadRequest, failure{`want {"host": "NAME or address"}`})
		return
	}
	if q.Timeout <= 0 {
		q.Timeout = DefaultPingTimeout
	}
	q.Timeout = min(q.Timeout, MaxPingTimeout)
	until := time.Now().Add(q.Timeout)
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(until.Add(answerTime)) // beyond it the client would seem to be gone
	_ = c.SetWriteDeadline(until.Add(answerTime))
	ctx, cancel := context.WithDeadline(r.Context(), until)
	defer cancel()
	answer, err := s.api.Ping(ctx, q.Host)
	if err != nil {
		reply(w, statusOf(err), failure{err.Error()})
		return
	}
	reply(w, http.StatusOK, answer)
}

// statusOf tells errors of Ping apart: nobody has the name; nobody answered; all others.
func statusOf(err error) int {
	var dns *net.DNSError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return http.StatusNotFound
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway
}

// failure is the body of an answer that is none.
type failure struct {
	Error string `json:"error"`
}

func reply(w http.ResponseWriter, code int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		code = http.StatusInternalServerError
		b, _ = json.Marshal(failure{err.Error()})
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	w.Write(append(b, '\n'))
}
