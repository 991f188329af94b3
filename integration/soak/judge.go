package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// What is sampled of a process.
const (
	resident    = "RSS, MB"
	share       = "PSS, MB" // resident, with what is shared divided among those who share it
	heap        = "live heap, MB"
	goroutines  = "goroutines"
	descriptors = "descriptors"
	threads     = "threads"
)

// resources lists them in the order of the report, each with how much more of it a process may have late in its life than early:
// a share and a number. What is compared are minima of minutes, so that what is there for a while only, connections and garbage,
// does not count. The Go runtime gives memory back when it likes and keeps threads.
var resources = []struct {
	name   string
	factor float64
	more   float64
}{
	{resident, 1.25, 8},
	{share, 1.25, 8},
	{heap, 1.25, 2},
	{goroutines, 1.10, 8},
	{descriptors, 1.10, 6},
	{threads, 1.25, 4},
}

const (
	// warmUp of a process is left out: caches fill, the heap finds its size, all members are met. So is that of a company of
	// which one has come or gone.
	warmUp = 30 * time.Second

	// judgedFrom is the time from which a third of it says something: it is then far longer than any outage, and what is kept for
	// one has gone again at some time in it.
	judgedFrom = 3 * time.Minute

	// leastStretch is how long what is compared must have lasted. A peer with a stack that had much to send at once keeps the
	// memory for half a minute, so that a minimum of less than this is of a moment.
	leastStretch = 45 * time.Second

	// mostIdle is how many goroutines a peer's or relay's process may have when its traffic has ended.
	mostIdle = 60
)

// A life is one process from its start to its end.
type life struct {
	Name    string
	PID     int
	Samples []sample
}

// A sample is what a process held at a time since its start was first seen.
type sample struct {
	At      time.Duration
	Company int // how many members there were; 0: that had just changed, and the sample is not compared with others
	Held    map[string]float64
}

// A trend is one resource over a life.
type trend struct {
	First, Last float64 // minima, early and late, in the same company
	Leak        bool
}

// trends judges a life; ok is false if it was too short for that, or no company was met both early and late: traffic with one
// member more takes more of everything.
func (l *life) trends() (trends map[string]trend, ok bool) {
	first, last, ok := l.stretches()
	if !ok {
		return nil, false
	}
	trends = make(map[string]trend)
	for _, r := range resources {
		early, late := held(first, r.name), held(last, r.name)
		if len(early) == 0 || len(late) == 0 {
			continue
		}
		t := trend{First: slices.Min(early), Last: slices.Min(late)}
		t.Leak = t.Last > t.First*r.factor+r.more
		trends[r.name] = t
	}
	return trends, true
}

// stretches are what of a life can be compared, after its warm-up. Of the time from when a company was first met until it was last
// met they are what of the first and of the last third was in that company. The company is the one with most time between, for a
// leak grows with time.
func (l *life) stretches() (first, last []sample, ok bool) {
	warm := l.Samples[l.firstAfter(warmUp):]
	met := make(map[int]struct{ first, last time.Duration }) // by company
	for _, s := range warm {
		if s.Company == 0 {
			continue
		}
		m, again := met[s.Company]
		if m.last = s.At; !again {
			m.first = s.At
		}
		met[s.Company] = m
	}
	longest := judgedFrom
	for _, company := range slices.Sorted(maps.Keys(met)) {
		m := met[company]
		if m.last-m.first < longest {
			continue
		}
		third := (m.last - m.first) / 3
		early, lasted := stretch(warm, company, m.first, m.first+third)
		late, lastedToo := stretch(warm, company, m.last-third, m.last)
		if min(lasted, lastedToo) >= leastStretch {
			first, last, longest, ok = early, late, m.last-m.first, true
		}
	}
	return first, last, ok
}

// stretch is what of the time between was in a company, and how long that lasted.
func stretch(samples []sample, company int, from, to time.Duration) (in []sample, lasted time.Duration) {
	for i, s := range samples {
		if s.Company != company || s.At < from || s.At > to {
			continue
		}
		if len(in) > 0 && samples[i-1].Company == company {
			lasted += s.At - samples[i-1].At
		}
		in = append(in, s)
	}
	return in, lasted
}

// held is how much there was of a resource, where that is known.
func held(samples []sample, resource string) []float64 {
	var all []float64
	for _, s := range samples {
		if v, ok := s.Held[resource]; ok {
			all = append(all, v)
		}
	}
	return all
}

func (l *life) firstAfter(d time.Duration) int {
	i, _ := slices.BinarySearchFunc(l.Samples, d, func(s sample, d time.Duration) int { return int(s.At - d) })
	return i
}

// leaks says what a life has ever more of.
func (l *life) leaks() []string {
	var all []string
	trends, _ := l.trends()
	for _, r := range resources {
		if t := trends[r.name]; t.Leak {
			all = append(all, fmt.Sprintf("%s (process %d): %s grew from %.1f to %.1f in %v; the least of each %v: %s",
				l.Name, l.PID, r.name, t.First, t.Last, l.lasted(), courseStep, l.course(r.name)))
		}
	}
	return all
}

const courseStep = 20 * time.Second

// course is how much there was of a resource at least in each step of a life, whatever the company: whether it grew all the time, or once.
func (l *life) course(resource string) string {
	var all []string
	for rest := l.Samples; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].At/courseStep == rest[0].At/courseStep {
			n++
		}
		if held := held(rest[:n], resource); len(held) > 0 {
			all = append(all, fmt.Sprintf("%.0f", slices.Min(held)))
		}
		rest = rest[n:]
	}
	return strings.Join(all, " ")
}

func (l *life) lasted() time.Duration {
	if len(l.Samples) == 0 {
		return 0
	}
	return l.Samples[len(l.Samples)-1].At.Round(time.Second)
}
