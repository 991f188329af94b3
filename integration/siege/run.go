//go:build linux

package main

import (
	"context"
	"regexp"
	"time"

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

// run runs row after row, each on a stage of its own.
func (p *plan) run(ctx context.Context) (all []rowResults) {
	for _, r := range p.rows() {
		p.progress("%s", r.id)
		s := &siege{programs: p.programs, quick: p.quick, progress: p.progress}
		bounded, cancel := context.WithTimeout(ctx, limit)
		err := stage.Play(bounded, func(on *stage.Stage) {
			s.Stage = on
			r.run(s)
		})
		cancel()
		result := rowResults{ID: r.id, Attack: r.attack, Findings: s.findings}
		if err != nil {
			result.Error = err.Error()
		}
		all = append(all, result)
		if ctx.Err() != nil {
			return all
		}
	}
	return all
}
