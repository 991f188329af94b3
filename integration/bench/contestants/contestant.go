//go:build linux

// Package contestants sets up what is compared: adit and its rivals, each with two ends that reach each
// other over an underlay of its own, and an agent of the load generator at each end.
//
// Contestants are compared within a [Class], whose members do the same thing in the same place. All take the
// defaults of their software, but for what is said at each.
package contestants

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/adit-overlay/adit/integration/bench/load"
	"github.com/adit-overlay/adit/integration/lab"
)

// Adit is the Name of all contestants that are adit.
const Adit = "adit"

// A Contestant is one software in one arrangement.
type Contestant struct {
	Name    string
	Foreign bool // is made of the rivals' programs
	Floor   bool // no tunnel at all: what the others cannot beat
	Variant bool // is adit itself, hampered: no rival
	Extra   bool // left out unless all is asked for

	up func(*Site) *Pair
}

// Up sets the contestant up and waits until its ends reach each other. It ends s.T when that fails.
func (c Contestant) Up(s *Site) *Pair {
	p := c.up(s)
	p.site = s
	if p.A != nil {
		s.reach(p)
	}
	return p
}

// onOneProcessor has the Go runtime of all its programs use one processor.
func (c Contestant) onOneProcessor() Contestant {
	up := c.up
	c.up = func(s *Site) *Pair {
		s.env = append(s.env, oneCore)
		return up(s)
	}
	return c
}

// A Pair is a contestant at work. What it lacks is nil or empty.
type Pair struct {
	A, B       *load.Controller // A is who dials
	IPv4, IPv6 string           // where B serves, as A sees it

	Ends  []*lab.Process // whose work is the tunnel; in-process ends include the load generator
	Relay *lab.Process
	Wire  *lab.Wire
	Alone *Relay // a relay without peers, driven by hand

	site *Site
}

// Ended returns an error for the first process of the pair that has ended by itself, nil if none has.
func (p *Pair) Ended() error {
	for _, x := range p.site.lasting {
		select {
		case <-x.Done():
			return fmt.Errorf("a process of %s ended; it wrote:\n%s", p.site.Name, x.Output())
		default:
		}
	}
	return nil
}

// A Site is where one contestant is set up.
type Site struct {
	*lab.Network
	T        lab.T
	Programs string // where the built programs are
	Name     string // tells the contestants of a network apart

	env     []string       // added to the environment of all programs
	dir     string         // made when first needed
	lasting []*lab.Process // tunnels and agents, which end with the site
}

// file writes a file and returns its path.
func (s *Site) file(name, content string) string {
	path := s.path(name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.T.Fatalf("%v", err)
	}
	return path
}

func (s *Site) path(name string) string {
	if s.dir == "" {
		s.dir = s.TempDir(lab.User{})
	}
	return filepath.Join(s.dir, name)
}

// start runs one of the built programs in h for as long as there is the site.
func (s *Site) start(h *lab.Host, program string, args ...string) *lab.Process {
	p := s.startFor(h, program, args...)
	s.lasting = append(s.lasting, p)
	return p
}

// startFor runs one of the built programs in h.
func (s *Site) startFor(h *lab.Host, program string, args ...string) *lab.Process {
	p := h.Command(filepath.Join(s.Programs, program), args...)
	p.Env = s.env
	p.Start()
	return p
}

const patience = 30 * time.Second

// says waits for text in a process's output.
func (s *Site) says(p *lab.Process, text string) {
	ctx, cancel := context.WithTimeout(s.T.Context(), patience)
	defer cancel()
	if err := p.WaitFor(ctx, text); err != nil {
		s.T.Fatalf("%s: %v", s.Name, err)
	}
}

// agent runs a program that is an agent of the load generator, and connects to it.
func (s *Site) agent(h *lab.Host, program string, args ...string) (*load.Controller, *lab.Process) {
	socket := s.path(fmt.Sprintf("agent%d", len(s.lasting)))
	p := s.start(h, program, append(args, "-control", socket)...)
	ctx, cancel := context.WithTimeout(s.T.Context(), patience)
	defer cancel()
	for {
		c, err := load.Control(ctx, socket)
		if err == nil {
			s.T.Cleanup(func() { c.Close() })
			return c, p
		}
		select {
		case <-p.Done():
			s.T.Fatalf("%s: %s ended; it wrote:\n%s", s.Name, program, p.Output())
		case <-ctx.Done():
			s.T.Fatalf("%s: %s: %v", s.Name, program, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sockets is an agent on the kernel's sockets, with the congestion control that most machines have,
// whatever this one has.
func (s *Site) sockets(h *lab.Host, args ...string) *load.Controller {
	c, _ := s.agent(h, "sockets", append(args, "-congestion", "cubic")...)
	return c
}

// reach waits until A reaches B at all its addresses.
func (s *Site) reach(p *Pair) {
	ctx, cancel := context.WithTimeout(s.T.Context(), patience)
	defer cancel()
	for _, host := range []string{p.IPv4, p.IPv6} {
		if host == "" {
			continue
		}
		for {
			var r load.EchoResult
			err := p.A.Run(ctx, load.Echo{Host: host, Duration: time.Millisecond}, &r)
			if err == nil {
				break
			}
			if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
				s.T.Fatalf("%s: the ends do not reach each other at %s: %v", s.Name, host, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func must[V any](s *Site) func(V, error) V {
	return func(v V, err error) V {
		if err != nil {
			s.T.Fatalf("%s: %v", s.Name, err)
		}
		return v
	}
}

// stop ends a process at once and waits for its end.
func stop(p *lab.Process) {
	p.Signal(os.Kill)
	<-p.Done()
}

// output is the error of a process with what it wrote.
func output(p *lab.Process, err error) error {
	if err != nil {
		err = fmt.Errorf("%w; it wrote:\n%s", err, p.Output())
	}
	return err
}
