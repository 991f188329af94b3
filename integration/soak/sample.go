package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A subject is a process that is alive now.
type subject struct {
	name string
	pid  int
	of   *member // whose agent is in the process, and tells of its heap and goroutines; nil: none is
}

// sampler keeps what all subjects hold.
type sampler struct {
	mu    sync.Mutex
	lives map[string]*life // by name and process
	since map[string]time.Time
}

func newSampler() *sampler {
	return &sampler{lives: make(map[string]*life), since: make(map[string]time.Time)}
}

// run samples until ctx ends.
func (s *sampler) run(ctx context.Context, every time.Duration, c *company, subjects func() []subject) {
	for sleep(ctx, every) {
		company := c.size()
		c.tell()
		if c.size() != company {
			company = 0
		}
		for _, x := range subjects() {
			s.take(x, company, time.Now())
		}
	}
}

func (s *sampler) take(x subject, company int, now time.Time) {
	held := readProcess(x.pid)
	if held == nil {
		return // it has just ended, or this system does not say
	}
	if x.of != nil {
		x.of.mu.Lock()
		r := x.of.last
		x.of.mu.Unlock()
		if r.Goroutines > 0 {
			held[goroutines], held[heap] = float64(r.Goroutines), float64(r.LiveHeap)/1e6
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fmt.Sprint(x.name, x.pid)
	l := s.lives[key]
	if l == nil {
		l = &life{Name: x.name, PID: x.pid}
		s.lives[key], s.since[key] = l, now
	}
	l.Samples = append(l.Samples, sample{At: now.Sub(s.since[key]), Company: company, Held: held})
}

// all returns the lives by name and length, the longest first.
func (s *sampler) all() []*life {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.lives), func(a, b *life) int {
		if a.Name != b.Name {
			return bytes.Compare([]byte(a.Name), []byte(b.Name))
		}
		return int(b.lasted() - a.lasted())
	})
}

// readProcess is what the system says of a process; nil where it says nothing.
func readProcess(pid int) map[string]float64 {
	held := make(map[string]float64)
	dir := "/proc/" + strconv.Itoa(pid)
	memory, err := os.ReadFile(dir + "/smaps_rollup")
	if err != nil {
		return nil
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return nil
	}
	files, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return nil
	}
	held[descriptors] = float64(len(files))
	for _, f := range []struct {
		resource, field string
		text            []byte
		unit            float64
	}{{resident, "Rss:", memory, 1024 / 1e6}, {share, "Pss:", memory, 1024 / 1e6}, {threads, "Threads:", status, 1}} {
		_, rest, _ := bytes.Cut(f.text, []byte("\n"+f.field))
		words := bytes.Fields(rest)
		if len(words) == 0 {
			return nil
		}
		n, err := strconv.ParseFloat(string(words[0]), 64)
		if err != nil {
			return nil
		}
		held[f.resource] = n * f.unit
	}
	return held
}
