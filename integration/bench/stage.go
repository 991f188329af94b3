//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// stage is the [lab.T] of a program: what a lab makes is cleaned up when the function given to play
// ends, and what ends a test ends that function.
type stage struct {
	ctx      context.Context
	cancel   context.CancelFunc
	cleanups []func()
}

// aborted is what Fatalf panics with.
type aborted struct{ error }

// play runs f on a new stage.
func play(ctx context.Context, f func(*stage)) error {
	s := &stage{}
	s.ctx, s.cancel = context.WithCancel(ctx)
	defer s.strike()
	return attempt(func() { f(s) })
}

// attempt runs f, and returns the error with which the stage ended it, if it did.
func attempt(f func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case aborted:
			err = r.error
		default:
			panic(r)
		}
	}()
	f()
	return nil
}

func (s *stage) strike() {
	s.cancel()
	for len(s.cleanups) > 0 {
		last := len(s.cleanups) - 1
		f := s.cleanups[last]
		s.cleanups = s.cleanups[:last]
		f()
	}
}

// Helper and the methods below make a stage a lab.T.
func (s *stage) Helper() {}

func (s *stage) Context() context.Context { return s.ctx }

func (s *stage) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

// Failed is always false: what a process wrote is told with the error, where it matters.
func (s *stage) Failed() bool { return false }

func (s *stage) Logf(format string, args ...any) {
	fmt.Fprintln(os.Stderr, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (s *stage) Errorf(format string, args ...any) { s.Logf(format, args...) }

func (s *stage) Fatalf(format string, args ...any) { panic(aborted{fmt.Errorf(format, args...)}) }

func (s *stage) Skipf(format string, args ...any) { s.Fatalf(format, args...) }
