package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// A Client asks the process at a socket. It keeps no connection.
type Client struct {
	http http.Client
}

// NewClient returns a client of the socket at path.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// An Error is the process's own: it was reached, and says no.
type Error struct {
	Code int // an HTTP status: 404, nobody has the name; 504, nobody answered in time; others
	Msg  string
}

func (e *Error) Error() string { return e.Msg }

// Status asks for the status, and unmarshals it into what to points at.
func (c *Client) Status(ctx context.Context, to any) error {
	return c.do(ctx, http.MethodGet, statusPath, nil, to)
}

// Ping asks for one echo to host, waiting for its answer as long as timeout, and unmarshals it into what to points at.
func (c *Client) Ping(ctx context.Context, host string, timeout time.Duration, to any) error {
	return c.do(ctx, http.MethodPost, pingPath, pingRequest{host, timeout}, to)
}

// maxAnswer bounds what is read of an answer. The status of a relay with 20,000 members is about 10 MB.
const maxAnswer = 256 << 20

func (c *Client) do(ctx context.Context, method, path string, question, to any) error {
	var body io.Reader
	if question != nil {
		b, err := json.Marshal(question)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+Host+path, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode == http.StatusOK {
		return answer.Decode(to)
	}
	var f failure
	if err := answer.Decode(&f); err != nil {
		return fmt.Errorf("%s, and %w", resp.Status, err)
	}
	return &Error{Code: resp.StatusCode, Msg: f.Error}
}
