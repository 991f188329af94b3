//go:build linux

package main

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/adit-overlay/adit/integration/bench/contestants"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		figures []float64
		want    float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		if got := (&entry{Figures: c.figures}).median(); got != c.want {
			t.Errorf("median of %v: %v, want %v", c.figures, got, c.want)
		}
	}
	if got := (&entry{}).median(); !math.IsNaN(got) {
		t.Errorf("median of nothing: %v, want NaN", got)
	}
}

func TestRatio(t *testing.T) {
	adit := func(v float64) *entry { return &entry{Contestant: contestants.Adit, Figures: []float64{v}} }
	rival := func(v float64) *entry { return &entry{Contestant: "r", Figures: []float64{v}} }
	floor := &entry{Contestant: "f", Floor: true, Figures: []float64{100}}
	absent := &entry{Contestant: "n"}
	for _, c := range []struct {
		better  direction
		entries []*entry
		want    string
	}{
		{more, []*entry{adit(6), rival(2), rival(3), floor}, "2.00 ×"},
		{less, []*entry{adit(6), rival(2), rival(3), floor}, "0.333 ×"},
		{less, []*entry{rival(12), adit(6), absent}, "2.00 ×"},
		{more, []*entry{adit(6), floor, absent}, "–"},
		{more, []*entry{absent, rival(1)}, "–"},
	} {
		l := line{metric: metric{Better: c.better}, Entries: c.entries}
		if got := ratioText(l.ratio()); got != c.want {
			t.Errorf("%s is better, %v: %s, want %s", c.better, c.entries, got, c.want)
		}
	}
}

func TestNumber(t *testing.T) {
	for _, c := range []struct {
		v    float64
		want string
	}{
		{0, "0"}, {0.01234, "0.0123"}, {0.5, "0.500"}, {1, "1.00"}, {12.345, "12.3"}, {99.96, "100.0"},
		{123.4, "123"}, {1234.5, "1,234"}, {1234567, "1,234,567"}, {100, "100"},
	} {
		if got := number(c.v); got != c.want {
			t.Errorf("number(%v) = %s, want %s", c.v, got, c.want)
		}
	}
}

func TestPlausible(t *testing.T) {
	metrics := []metric{{Name: "rate"}, {Name: "loss", Zero: true}}
	for _, c := range []struct {
		figures []float64
		ok      bool
	}{
		{[]float64{1, 0}, true},
		{[]float64{none(), none()}, true},
		{[]float64{0, 1}, false},
		{[]float64{-1, 1}, false},
		{[]float64{math.Inf(1), 1}, false},
		{[]float64{1}, false},
	} {
		if err := plausible(metrics, c.figures); (err == nil) != c.ok {
			t.Errorf("%v: %v, want ok: %v", c.figures, err, c.ok)
		}
	}
}

// TestTable is a class with a contestant that failed and a line that applies to nobody.
func TestTable(t *testing.T) {
	class := contestants.Class{ID: "c", Title: "Class", Contestants: []contestants.Contestant{
		{Name: contestants.Adit}, {Name: "rival"}, {Name: "bare", Floor: true},
	}}
	x := row{id: "x", metrics: []metric{{Name: "speed", Unit: "m/s", Better: more}, {Name: "relay", Unit: "s", Better: less}}}
	y := row{id: "y", metrics: []metric{{Name: "wait", Unit: "ms", Better: less}}}
	c := newClass(class, []row{x, y})
	c.record(x, 0, []float64{2000, none()}, nil)
	c.record(x, 0, []float64{4000, none()}, nil)
	c.record(x, 1, []float64{1500, none()}, nil)
	c.record(x, 2, []float64{9000, none()}, nil)
	c.record(y, 0, []float64{1.5}, nil)
	c.record(y, 1, nil, errors.New("it broke\nat length"))
	r := &results{Classes: []*classResults{c}}
	var b strings.Builder
	r.writeText(&b)
	const want = `
Class                      adit             rival   bare  adit : best rival
speed  m/s  3,000 (2,000–4,000)             1,500  9,000             2.00 ×
wait   ms                  1.50  failed: it broke      –                  –

Failed:

- c/y, rival: it broke
  at length
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// TestProgramme looks for rows that could not be told apart, and classes without rows.
func TestProgramme(t *testing.T) {
	for _, c := range contestants.Classes() {
		for _, e := range []extent{quickly, usually, everything} {
			seen := make(map[string]bool)
			for _, r := range rowsOf(c.ID, e) {
				if seen[r.id] {
					t.Errorf("%s has two rows %s", c.ID, r.id)
				}
				seen[r.id] = true
			}
			if len(seen) == 0 {
				t.Errorf("%s has no rows", c.ID)
			}
		}
	}
}
