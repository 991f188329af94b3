package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"time"
)

// Serve does what controllers ask for at the Unix socket path, until ctx ends.
func (a *Agent) Serve(ctx context.Context, path string) error {
	os.Remove(path) // of a process that was killed
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go a.ServeConn(c)
	}
}

// ServeConn does what the controller at the other end asks for.
func (a *Agent) ServeConn(c net.Conn) {
	server := rpc.NewServer()
	if err := server.Register(a); err != nil {
		panic(err) // the methods are not what net/rpc wants
	}
	server.ServeConn(c)
}

// A Controller drives an agent.
type Controller struct{ rpc *rpc.Client }

// Control connects to the agent at a Unix socket, and waits for it to be there.
func Control(ctx context.Context, path string) (*Controller, error) {
	for {
		c, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			return NewController(c), nil
		}
		if !pause(ctx, 5*time.Millisecond) {
			return nil, fmt.Errorf("the agent at %s: %w", path, err)
		}
	}
}

// NewController drives the agent at the other end of c.
func NewController(c net.Conn) *Controller { return &Controller{rpc.NewClient(c)} }

// Close disconnects. The agent stays.
func (c *Controller) Close() error { return c.rpc.Close() }

// ErrNoAnswer is the error of an agent that is there and does not answer in time: its process is stopped, perhaps.
var ErrNoAnswer = errors.New("no answer")

// Who is not stopped answers at once, or, where others have the processors, later.
const (
	answerLimit = 30 * time.Second
	partedLimit = partLimit + answerLimit
)

// Meet, Part and the others below are the agent's methods of the same name.
func (c *Controller) Meet(t Target) error    { return c.call("Meet", t, &None{}, answerLimit) }
func (c *Controller) Part(name string) error { return c.call("Part", name, &None{}, partedLimit) }
func (c *Controller) PartAll() error         { return c.call("PartAll", None{}, &None{}, partedLimit) }
func (c *Controller) Calm(calm bool) error   { return c.call("Calm", calm, &None{}, answerLimit) }
func (c *Controller) Mark(t time.Time) error { return c.call("Mark", t, &None{}, answerLimit) }

func (c *Controller) Resumed() ([]Resumption, error) {
	var r []Resumption
	err := c.call("Resumed", None{}, &r, answerLimit)
	return r, err
}

func (c *Controller) Tell(known int) (Report, error) {
	r := new(Report)
	if err := c.call("Tell", known, r, answerLimit); err != nil {
		return Report{}, err // r may still be written to
	}
	return *r, nil
}

func (c *Controller) call(method string, query, result any, limit time.Duration) error {
	call := c.rpc.Go("Agent."+method, query, result, make(chan *rpc.Call, 1))
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-call.Done:
		return call.Error
	case <-t.C:
		return fmt.Errorf("%s: %w within %v", method, ErrNoAnswer, limit)
	}
}
