//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/adit-overlay/adit/integration/bench/contestants"
	"github.com/adit-overlay/adit/integration/internal/stage"
	"github.com/adit-overlay/adit/integration/lab"
)

// plan is what is to be measured.
type plan struct {
	extent      extent
	rows        *regexp.Regexp // of "class/row"
	contestants *regexp.Regexp // of "class/contestant"
	rounds      int
	pace        pace
	programs    string // directory

	progress func(format string, args ...any)
}

// classes returns what is left of all classes, and their rows.
func (p *plan) classes() (classes []contestants.Class, rows [][]row) {
	for _, c := range contestants.Classes() {
		c.Contestants = slices.DeleteFunc(c.Contestants, func(x contestants.Contestant) bool {
			return x.Extra && p.extent != everything || !p.contestants.MatchString(c.ID+"/"+x.Name)
		})
		rs := slices.DeleteFunc(rowsOf(c.ID, p.extent), func(r row) bool { return !p.rows.MatchString(c.ID + "/" + r.id) })
		if len(c.Contestants) > 0 && len(rs) > 0 {
			classes, rows = append(classes, c), append(rows, rs)
		}
	}
	return classes, rows
}

// foreign reports whether the programs of the rivals are needed.
func (p *plan) foreign() bool {
	classes, _ := p.classes()
	return slices.ContainsFunc(classes, func(c contestants.Class) bool {
		return slices.ContainsFunc(c.Contestants, func(x contestants.Contestant) bool { return x.Foreign })
	})
}

// run measures class after class.
func (p *plan) run(ctx context.Context) ([]*classResults, error) {
	var all []*classResults
	classes, rows := p.classes()
	for i, c := range classes {
		r := newClass(c, rows[i])
		all = append(all, r)
		err := stage.Play(ctx, func(s *stage.Stage) {
			h := heat{plan: p, stage: s, class: c, rows: rows[i], results: r}
			h.run()
		})
		if ctx.Err() != nil {
			return all, errors.New("interrupted")
		}
		if err != nil {
			return all, fmt.Errorf("%s: %w", c.Title, err)
		}
	}
	return all, nil
}

// heat is one class being measured.
type heat struct {
	*plan
	stage   *stage.Stage
	class   contestants.Class
	rows    []row
	results *classResults

	pairs  []*contestants.Pair
	broken []error // why a contestant takes no further part
}

func (h *heat) run() {
	h.enter()
	h.measure(beforeLoad)
	for round := range h.rounds {
		h.progress("%s: round %d of %d", h.class.Title, round+1, h.rounds)
		h.round(round)
	}
	h.measure(afterLoad)
}

// enter sets all contestants up.
func (h *heat) enter() {
	network := lab.New(h.stage)
	h.pairs = make([]*contestants.Pair, len(h.class.Contestants))
	h.broken = make([]error, len(h.class.Contestants))
	for i, c := range h.class.Contestants {
		h.progress("%s: setting up %s", h.class.Title, c.Name)
		site := &contestants.Site{Network: network, T: h.stage, Programs: h.programs, Name: c.Name}
		h.broken[i] = stage.Attempt(func() { h.pairs[i] = c.Up(site) })
	}
}

// measure measures the rows that belong to a moment.
func (h *heat) measure(m moment) {
	for _, r := range h.rows {
		if r.once != m {
			continue
		}
		for i := range h.pairs {
			h.cell(r, i)
		}
	}
}

// round measures every row that is repeated, each for all contestants, beginning with another in each round.
func (h *heat) round(n int) {
	for _, r := range h.rows {
		if r.once != everyRound {
			continue
		}
		for i := range h.pairs {
			h.cell(r, (i+n)%len(h.pairs))
		}
	}
}

const (
	limit = 90 * time.Second      // for a cell
	rest  = 50 * time.Millisecond // before a cell: what the last has left in buffers is to be gone
)

func (h *heat) cell(r row, i int) {
	if h.stage.Context().Err() != nil {
		return
	}
	if h.broken[i] != nil {
		h.results.record(r, i, nil, h.broken[i])
		return
	}
	time.Sleep(rest)
	ctx, cancel := context.WithTimeout(h.stage.Context(), limit)
	defer cancel()
	figures, err := r.run(&cell{ctx, h.pairs[i], h.pace})
	if err == nil {
		err = plausible(r.metrics, figures)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		h.broken[i] = fmt.Errorf("hung in row %s: %w", r.id, err)
	}
	if ended := h.pairs[i].Ended(); ended != nil {
		h.broken[i] = fmt.Errorf("in row %s: %w", r.id, ended)
		err = h.broken[i]
	}
	if err != nil {
		h.progress("%s: %s: %s failed: %s", h.class.Title, r.id, h.class.Contestants[i].Name, brief(err.Error()))
	}
	h.results.record(r, i, figures, err)
}
