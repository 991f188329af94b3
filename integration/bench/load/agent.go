package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/signal"
	"syscall"
)

// Agent is one end of the load, driven by [Controller]. Its methods are those of net/rpc.
type Agent struct {
	net  Network
	join Join
}

// RunAgent serves on the network n, unless n only dials, and does what a [Controller] asks for at the
// Unix socket path, until the process is interrupted. join may be nil: then there are no cold dials.
func RunAgent(socket string, n Network, join Join) error {
	if _, dialsOnly := n.(Socks); !dialsOnly {
		if err := Serve(n); err != nil {
			return err
		}
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return (&Agent{n, join}).serve(ctx, l)
}

// serve answers controllers until ctx ends.
func (a *Agent) serve(ctx context.Context, l net.Listener) error {
	server := rpc.NewServer()
	if err := server.Register(a); err != nil {
		return err
	}
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		each(func(c net.Conn) { server.ServeConn(c) })(l)
	}()
	<-ctx.Done()
	err := l.Close()
	<-accepting
	return err
}

// Stream runs a [Stream].
func (a *Agent) Stream(q Stream, r *StreamResult) (err error) {
	*r, err = q.Run(context.Background(), a.net)
	return err
}

// Echo runs an [Echo].
func (a *Agent) Echo(q Echo, r *EchoResult) (err error) {
	*r, err = q.Run(context.Background(), a.net)
	return err
}

// Flood runs a [Flood].
func (a *Agent) Flood(q Flood, r *FloodResult) (err error) {
	*r, err = q.Run(context.Background(), a.net)
	return err
}

// HTTP runs an [HTTP].
func (a *Agent) HTTP(q HTTP, r *HTTPResult) (err error) {
	*r, err = q.Run(context.Background(), a.net)
	return err
}

// Open runs an [Open].
func (a *Agent) Open(q Open, r *OpenResult) (err error) {
	*r, err = q.Run(context.Background(), a.net)
	return err
}

// Cold runs a [Cold].
func (a *Agent) Cold(q Cold, r *Latency) (err error) {
	if a.join == nil {
		return errors.New("this end cannot join anew")
	}
	*r, err = q.Run(context.Background(), a.join)
	return err
}

// Controller drives an agent.
type Controller struct{ rpc *rpc.Client }

// Control connects to the agent at a Unix socket.
func Control(ctx context.Context, socket string) (*Controller, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	return &Controller{rpc.NewClient(c)}, nil
}

// Run has the agent do what query, a [Stream], [Echo] or other query by value, asks for. The result
// points to what that query's Run returns. When ctx ends first the agent goes on, and is of no use any more.
func (c *Controller) Run(ctx context.Context, query, result any) error {
	method, err := methodOf(query)
	if err != nil {
		return err
	}
	call := c.rpc.Go("Agent."+method, query, result, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		return call.Error
	case <-ctx.Done():
		return fmt.Errorf("%s has no end: %w", method, ctx.Err())
	}
}

func methodOf(query any) (string, error) {
	switch query.(type) {
	case Stream:
		return "Stream", nil
	case Echo:
		return "Echo", nil
	case Flood:
		return "Flood", nil
	case HTTP:
		return "HTTP", nil
	case Open:
		return "Open", nil
	case Cold:
		return "Cold", nil
	}
	return "", fmt.Errorf("no agent runs a %T", query)
}

// Close disconnects. The agent stays.
func (c *Controller) Close() error { return c.rpc.Close() }
