//go:build linux

package main

import (
	"math"
	"slices"

	"github.com/adit-overlay/adit/integration/bench/contestants"
	"github.com/adit-overlay/adit/integration/internal/stage"
)

// results are everything a run has found. It is what -json writes.
type results struct {
	Command string
	Machine machine
	Rounds  int
	Quick   bool `json:",omitempty"`
	Classes []*classResults
}

// machine is what the figures depend on, and the rivals, if any took part.
type machine struct {
	stage.Machine
	Rivals []string `json:",omitempty"`
}

type classResults struct {
	ID, Title   string
	Contestants []string
	Lines       []*line
}

// line is one metric of one row, with what each contestant came to.
type line struct {
	Row string
	metric
	Entries []*entry
}

// entry is what one contestant came to. An entry without figures and Error is not applicable.
type entry struct {
	Contestant string
	Floor      bool      `json:",omitempty"`
	Variant    bool      `json:",omitempty"`
	Figures    []float64 `json:",omitempty"` // one a round
	Error      string    `json:",omitempty"` // why there are none, or not all
}

func (e *entry) failed() bool { return e.Error != "" }

func (e *entry) median() float64 {
	if len(e.Figures) == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(e.Figures))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// newClass makes room for what the rows will yield.
func newClass(c contestants.Class, rows []row) *classResults {
	r := &classResults{ID: c.ID, Title: c.Title}
	for _, x := range c.Contestants {
		r.Contestants = append(r.Contestants, x.Name)
	}
	for _, row := range rows {
		for _, m := range row.metrics {
			l := &line{Row: c.ID + "/" + row.id, metric: m}
			for _, x := range c.Contestants {
				l.Entries = append(l.Entries, &entry{Contestant: x.Name, Floor: x.Floor, Variant: x.Variant})
			}
			r.Lines = append(r.Lines, l)
		}
	}
	return r
}

// record notes what a contestant came to in a row: figures, or why there are none.
func (r *classResults) record(row row, contestant int, figures []float64, err error) {
	i := 0
	for _, l := range r.Lines {
		if l.Row != r.ID+"/"+row.id {
			continue
		}
		e := l.Entries[contestant]
		switch {
		case err != nil:
			e.Error = err.Error()
		case !math.IsNaN(figures[i]):
			e.Figures = append(e.Figures, figures[i])
		}
		i++
	}
}

// ratio is how many times better adit is than the best of its rivals, by the medians; NaN without a rival.
func (l *line) ratio() float64 {
	adit, best := math.NaN(), math.NaN()
	for _, e := range l.Entries {
		m := e.median()
		switch {
		case e.Contestant == contestants.Adit:
			adit = m
		case e.Floor || e.Variant || math.IsNaN(m):
		case math.IsNaN(best) || l.Better == more && m > best || l.Better == less && m < best:
			best = m
		}
	}
	if l.Better == less {
		return best / adit
	}
	return adit / best
}

// failures are the errors of all entries. What kept a contestant of a class from several rows is told once.
func (r *results) failures() []string {
	var all []string
	for _, c := range r.Classes {
		told := make(map[[2]string]bool)
		for _, l := range c.Lines {
			for _, e := range l.Entries {
				if key := [2]string{e.Contestant, e.Error}; e.failed() && !told[key] {
					told[key] = true
					all = append(all, l.Row+", "+e.Contestant+": "+e.Error)
				}
			}
		}
	}
	return all
}
