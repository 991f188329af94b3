//go:build linux

package stage

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// A Stage is the [lab.T] of a program: what a lab makes is cleaned up when the function given to Play
// ends, and what ends a test ends that function.
type Stage struct {
	ctx      context.Context
	cancel   context.CancelFunc
	cleanups []func()
}

// aborted is what Fatalf panics with.
type aborted struct{ error }

// Play runs f on a new stage.
func Play(ctx context.Context, f func(*Stage)) error {
	s := &Stage{}
	s.ctx, s.cancel = context.WithCancel(ctx)
	defer s.strike()
	return Attempt(func() { f(s) })
}

// Attempt runs f, and returns the error with which the stage ended it, if it did.
func Attempt(f func()) (err error) {
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

func (s *Stage) strike() {
	s.cancel()
	for len(s.cleanups) > 0 {
		last := len(s.cleanups) - 1
		f := s.cleanups[last]
		s.cleanups = s.cleanups[:last]
		f()
	}
}

// Helper and the methods below make a Stage a lab.T.
func (s *Stage) Helper() {}

func (s *Stage) Context() context.Context { return s.ctx }

func (s *Stage) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

// Failed is always false: what a process wrote is told with the error, where it matters.
func (s *Stage) Failed() bool { return false }

func (s *Stage) Logf(format string, args ...any) {
	fmt.Fprintln(os.Stderr, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (s *Stage) Errorf(format string, args ...any) { s.Logf(format, args...) }

func (s *Stage) Fatalf(format string, args ...any) { panic(aborted{fmt.Errorf(format, args...)}) }

func (s *Stage) Skipf(format string, args ...any) { s.Fatalf(format, args...) }
