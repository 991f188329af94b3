//go:build linux

package main

import (
	"context"
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

// limit is for a row: one that takes longer hangs.
const limit = 5 * time.Minute

// run runs row after row, each on a stage of its own. A quick run, which has no figure to spoil, runs several at a time.
func (p *plan) run(ctx context.Context) []rowResults {
	rows := p.rows()
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
	p.progress("%s", r.id)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s := &siege{programs: p.programs, quick: p.quick, progress: p.progress}
	err := stage.Play(ctx, func(on *stage.Stage) {
		s.Stage = on
		r.run(s)
	})
	result := rowResults{ID: r.id, Attack: r.attack, Findings: s.findings}
	if err != nil {
		result.Error = err.Error()
	}
	return result
}
