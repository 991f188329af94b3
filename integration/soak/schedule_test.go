package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// testKinds are some of which one lasts.
func testKinds() []kind {
	choose := func(end func() error) func(*rand.Rand) blow {
		return func(r *rand.Rand) blow { return blow{whom: fmt.Sprint(r.IntN(5)), end: end} }
	}
	return []kind{
		{"flush", 2, usualBound, choose(nil)},
		{"down", 3, usualBound, choose(func() error { return nil })},
		{"restart", 1, restartBound, choose(nil)},
	}
}

func dealt(seed uint64, n int) []string {
	s := newSchedule(seed, ordinary, testKinds())
	var all []string
	for range n {
		p := s.next()
		all = append(all, fmt.Sprint(p.name, p.whom, p.lasts, p.calm))
	}
	return all
}

func TestSeedRepeatsTheSchedule(t *testing.T) {
	if !slices.Equal(dealt(7, 200), dealt(7, 200)) {
		t.Error("one seed dealt two different schedules")
	}
	if slices.Equal(dealt(7, 200), dealt(8, 200)) {
		t.Error("two seeds dealt the same")
	}
}

func TestEachKindIsDealt(t *testing.T) {
	s := newSchedule(7, ordinary, testKinds())
	times := make(map[string]int)
	for range 3 {
		times[s.next().name]++
	}
	for _, k := range testKinds() {
		if times[k.name] != 1 {
			t.Errorf("%s was dealt %d times at first, want each kind once", k.name, times[k.name])
		}
	}
	for range 6 * 10 {
		times[s.next().name]++
	}
	for _, k := range testKinds() {
		if got, want := times[k.name], 1+10*k.weight; got != want {
			t.Errorf("%s was dealt %d times, want %d by its weight", k.name, got, want)
		}
	}
}
