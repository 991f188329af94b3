package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/adit-overlay/adit/control"
	"github.com/adit-overlay/adit/peer"
)

func pingCommand(e *env) *cobra.Command {
	var p pinger
	var who *target
	cmd := &cobra.Command{
		Use:   "ping HOST",
		Short: "See whether a member answers, by which path and how fast",
		Long: `Have a running adit send echoes to HOST, NAME.adit or an overlay address, one after the
other until it is interrupted or -n are sent. Each answer is told with its time
and the path in use: the member's underlay address, or the relay's.

From a peer in mode netstack it is ICMP. From one in mode tun, and from a relay, it is
the adit at HOST that answers, whatever that host thinks of ICMP; ping(8) asks the host
itself. The first answer may take a handshake longer.

The exit code is 0 if there was an answer, 1 if there was none.`,
		Example: `  adit ping web.adit
  adit ping -n 3 --timeout 1s 10.9.0.3`,
		Args: oneArg("HOST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.check(); err != nil {
				return err
			}
			c, err := who.client()
			if err != nil {
				return err
			}
			ctx, stop := untilInterrupted()
			defer stop()
			p.host, p.out = args[0], e.stdout
			p.echo = func(ctx context.Context) (peer.Echo, error) {
				var echo peer.Echo
				ctx, cancel := context.WithTimeout(ctx, p.timeout+statusTimeout)
				defer cancel()
				return echo, c.Ping(ctx, p.host, p.timeout, &echo)
			}
			return p.run(ctx)
		},
	}
	who = targetFlags(cmd)
	cmd.Flags().UintVarP(&p.count, "count", "n", 0, "how many echoes are sent; 0: until interrupted")
	cmd.Flags().DurationVar(&p.interval, "interval", time.Second, "from one to the next")
	cmd.Flags().DurationVar(&p.timeout, "timeout", control.DefaultPingTimeout, "how long each answer is waited for")
	return cmd
}

// leastInterval keeps a slip of the finger from becoming a flood.
const leastInterval = 10 * time.Millisecond

// A pinger sends echoes and keeps count.
type pinger struct {
	host              string
	count             uint
	interval, timeout time.Duration
	out               io.Writer
	echo              func(context.Context) (peer.Echo, error)

	sent, answered   uint
	least, most, sum time.Duration
}

func (p *pinger) check() error {
	switch {
	case p.interval < leastInterval:
		return usagef("--interval %v: want at least %v", p.interval, leastInterval)
	case p.timeout <= 0 || p.timeout > control.MaxPingTimeout:
		return usagef("--timeout %v: want more than 0, and at most %v", p.timeout, control.MaxPingTimeout)
	}
	return nil
}

// run sends until all are sent or ctx ends.
func (p *pinger) run(ctx context.Context) error {
	var err error
	next := time.NewTicker(p.interval)
	defer next.Stop()
	for p.count == 0 || p.sent < p.count {
		if p.sent > 0 {
			select {
			case <-next.C:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			break
		}
		if err = p.once(ctx); err != nil {
			break
		}
	}
	p.summarize()
	if err == nil && p.answered == 0 {
		err = fmt.Errorf("no answer from %s", p.host)
	}
	return err
}

// once sends one. The error is one after which others are of no use.
func (p *pinger) once(ctx context.Context) error {
	echo, err := p.echo(ctx)
	var said *control.Error
	switch {
	case ctx.Err() != nil: // interrupted: it is not known what would have come of it
		return nil
	case err == nil:
		p.sent++
		p.answer(echo)
		return nil
	case !errors.As(err, &said):
		return unreached(err)
	case said.Code == http.StatusNotFound, said.Code == http.StatusBadRequest:
		return said
	}
	p.sent++
	if said.Code == http.StatusGatewayTimeout {
		fmt.Fprintf(p.out, "no answer within %v: seq=%d\n", p.timeout, p.sent)
	} else {
		fmt.Fprintf(p.out, "%s: seq=%d\n", oneLine(said), p.sent)
	}
	return nil
}

func (p *pinger) answer(e peer.Echo) {
	if p.answered == 0 || e.Time < p.least {
		p.least = e.Time
	}
	p.answered++
	p.most = max(p.most, e.Time)
	p.sum += e.Time
	who := e.Address.String()
	if e.Name != "" {
		who = fmt.Sprintf("%s (%s)", e.Name, who)
	}
	path := pathOf(e.Endpoint, e.Via)
	if e.Self {
		path = "none, the address is its own"
	}
	fmt.Fprintf(p.out, "answer from %s: seq=%d time=%s path=%s\n", who, p.sent, milliseconds(e.Time), path)
}

func (p *pinger) summarize() {
	if p.sent == 0 {
		return
	}
	fmt.Fprintf(p.out, "%d sent, %d answered, %d%% lost", p.sent, p.answered, (p.sent-p.answered)*100/p.sent)
	if p.answered > 0 {
		fmt.Fprintf(p.out, "; least %s, mean %s, most %s", milliseconds(p.least), milliseconds(p.sum/time.Duration(p.answered)), milliseconds(p.most))
	}
	fmt.Fprintln(p.out)
}
