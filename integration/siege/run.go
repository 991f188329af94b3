//go:build linux

package main

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/adit-overlay/adit/integration/internal/stage"
)

// plan is what is to be attacked, and how.
type plan struct {
	only     *regexp.Regexp
	quick    bool
	programs string // directory
	limits   limits

	progress func(format string, args ...any)
}

// rows are those of the programme that are wanted.
func (p *plan) rows() (wanted []row) {
	for _, r := range programme() {
		if p.only.MatchString(r.id) {
			wanted = append(wanted, r)
		}
	}
	return wanted
}

// limits are how long a row may take, and then how long it may take to notice that it is to end.
type limits struct{ row, ending time.Duration }

var usualLimits = limits{row: 5 * time.Minute, ending: 30 * time.Second}

// run runs row after row, each on a stage of its own. A quick run, which has no figure to spoil, runs several at a time. When ctx ends,
// rows that have ended keep what they found, and no other begins.
func (p *plan) run(ctx context.Context, rows []row) []rowResults {
	all := make([]rowResults, len(rows))
	var running errgroup.Group
	running.SetLimit(1)
	if p.quick {
		running.SetLimit(quickAtATime)
	}
	for i, r := range rows {
		running.Go(func() error {
			all[i] = p.attack(ctx, r)
			return nil
		})
	}
	running.Wait()
	return all
}

const quickAtATime = 3

func (p *plan) attack(ctx context.Context, r row) rowResults {
	result := rowResults{ID: r.id, Attack: r.attack}
	if ctx.Err() != nil {
		result.Error = "interrupted before it began"
		return result
	}
	p.progress("%s", r.id)
	ctx, cancel := context.WithTimeoutCause(ctx, p.limits.row, fmt.Errorf("not done within %v", p.limits.row))
	defer cancel()
	s := &siege{programs: p.programs, quick: p.quick, progress: p.progress}
	ended := make(chan error, 1)
	go func() {
		ended <- stage.Play(ctx, func(on *stage.Stage) {
			s.Stage = on
			r.run(s)
		})
	}()
	err := p.await(ctx, ended)
	result.Findings = s.seen()
	if err != nil {
		result.Error = err.Error()
	}
	return result
}

// await waits for a row to end. One that hangs is left behind, with what it has made: the next lab takes that away.
func (p *plan) await(ctx context.Context, ended <-chan error) error {
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(p.limits.ending):
		return fmt.Errorf("hangs, and has not ended %v after it was called off: %w", p.limits.ending, context.Cause(ctx))
	}
}
