package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// HTTP asks for GETs of 128 bytes in a closed loop.
type HTTP struct {
	Host      string
	Clients   int
	Duration  time.Duration
	KeepAlive bool // else a connection a request
}

// HTTPResult is what came of them. Failed requests are in nothing but Failed and Why.
type HTTPResult struct {
	Latency
	PerSecond float64
	Failed    int
	Why       string // the last failure
}

// Run runs the clients.
func (h HTTP) Run(ctx context.Context, n Network) (HTTPResult, error) {
	begin := time.Now()
	end := begin.Add(h.Duration)
	loops := make([]closedLoop, h.Clients)
	var wg sync.WaitGroup
	for i := range loops {
		wg.Go(func() { loops[i].run(ctx, n, h, end) })
	}
	wg.Wait()
	elapsed := time.Since(begin)
	var r HTTPResult
	var took []time.Duration
	for _, l := range loops {
		took = append(took, l.took...)
		r.Failed += l.failed
		if l.why != nil {
			r.Why = l.why.Error()
		}
	}
	r.Latency = latencyOf(took)
	r.PerSecond = float64(len(took)) / elapsed.Seconds()
	if len(took) == 0 {
		return r, fmt.Errorf("no request succeeded; %d failed, the last: %s", r.Failed, r.Why)
	}
	return r, nil
}

// closedLoop is one client.
type closedLoop struct {
	took   []time.Duration
	failed int
	why    error
}

// run makes one request at least, however late it is let run.
func (l *closedLoop) run(ctx context.Context, n Network, h HTTP, end time.Time) {
	var c *client
	for now := time.Now(); len(l.took)+l.failed == 0 || now.Before(end); now = time.Now() {
		var err error
		if c, err = get(ctx, n, h.Host, c, h.KeepAlive, now.Add(5*time.Second)); err != nil {
			l.failed++
			l.why = err
			continue
		}
		l.took = append(l.took, time.Since(now))
	}
	if c != nil {
		c.conn.Close()
	}
}

// client is a connection to the server.
type client struct {
	conn net.Conn
	r    *bufio.Reader
}

// get makes one request, on c unless that is nil, and returns the connection to use next, nil unless keep.
func get(ctx context.Context, n Network, host string, c *client, keep bool, until time.Time) (*client, error) {
	if c == nil {
		ctx, cancel := context.WithDeadline(ctx, until)
		conn, err := n.DialContext(ctx, "tcp", at(host, portHTTP))
		cancel()
		if err != nil {
			return nil, err
		}
		c = &client{conn, bufio.NewReaderSize(conn, 1024)}
	}
	c.conn.SetDeadline(until)
	err := c.get(keep)
	if err != nil || !keep {
		c.conn.Close()
		return nil, err
	}
	return c, nil
}

var (
	requestKeep  = []byte("GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
	requestClose = []byte("GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
)

// get is an HTTP client without what costs time: it is not what is measured.
func (c *client) get(keep bool) error {
	request := requestClose
	if keep {
		request = requestKeep
	}
	if _, err := c.conn.Write(request); err != nil {
		return err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("the server said %q", line)
	}
	length := -1
	for len(line) > 2 {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return err
		}
		if v, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(v))); err != nil {
				return err
			}
		}
	}
	if length != bodyLen {
		return fmt.Errorf("a body of %d bytes, want %d", length, bodyLen)
	}
	if _, err := c.r.Discard(length); err != nil {
		return err
	}
	if keep {
		return nil
	}
	// The server closes first, so that what TIME_WAIT there is, is there.
	if _, err := c.r.ReadByte(); err != io.EOF {
		return errors.Join(errors.New("the server did not close"), err)
	}
	return nil
}
