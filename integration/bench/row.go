//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/adit-overlay/adit/integration/bench/contestants"
)

// A row is one measurement, which may yield several figures: a line of the table each.
type row struct {
	id      string
	metrics []metric

	// run measures once, and returns a figure for each metric, none() where there is none.
	run func(*cell) ([]float64, error)

	// once, if set, is when the row is measured in place of in every round.
	once moment
}

// A cell is a row measured for one contestant in one round.
type cell struct {
	ctx  context.Context
	pair *contestants.Pair
	pace pace
}

// moment is a time at which a row that is not repeated is measured.
type moment int

const (
	everyRound moment = iota
	beforeLoad
	afterLoad
)

// A metric is what a figure means.
type metric struct {
	Name   string
	Unit   string
	Better direction
	Zero   bool // a figure of 0 is possible, not a mistake
}

type direction string

const (
	more direction = "more"
	less direction = "less"
)

func none() float64 { return math.NaN() }

// plausible refuses figures that cannot be.
func plausible(metrics []metric, figures []float64) error {
	if len(figures) != len(metrics) {
		return fmt.Errorf("%d figures for %d metrics", len(figures), len(metrics))
	}
	for i, v := range figures {
		m := metrics[i]
		if math.IsInf(v, 0) || v < 0 || v == 0 && !m.Zero {
			return fmt.Errorf("%s: %v %s is not plausible", m.Name, v, m.Unit)
		}
	}
	return nil
}

// ask has A's agent run a query.
func (c *cell) ask(query, result any) error { return c.pair.A.Run(c.ctx, query, result) }

// pace is how long things take.
type pace struct {
	stream, echo, http, open, far, blast time.Duration

	probe  time.Duration // of a rate of datagrams
	steps  int           // of the search for the best
	cold   int           // dials
	crowd  int           // members
	settle time.Duration // between coming up and being idle
}

var (
	ordinaryPace = pace{
		stream: 2 * time.Second, echo: 800 * time.Millisecond, http: 1200 * time.Millisecond, open: time.Second,
		far: 4 * time.Second, blast: 2 * time.Second,
		probe: 150 * time.Millisecond, steps: 4, cold: contestants.ColdMembers, crowd: 10000, settle: 2 * time.Second,
	}
	quickPace = pace{
		stream: 500 * time.Millisecond, echo: 200 * time.Millisecond, http: 300 * time.Millisecond, open: 300 * time.Millisecond,
		far: time.Second, blast: 500 * time.Millisecond,
		probe: 50 * time.Millisecond, steps: 1, cold: 3, crowd: 500, settle: 200 * time.Millisecond,
	}
)
