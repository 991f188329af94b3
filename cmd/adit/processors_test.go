package main

import "testing"

func TestGovernor(t *testing.T) {
	repeat := func(n int, v float64) (all []float64) {
		for range n {
			all = append(all, v)
		}
		return all
	}
	for _, c := range []struct {
		name string
		most int
		from int
		used []float64
		line int
		want int
	}{
		{"one that is not full is enough", 8, 1, repeat(100, 0.8), 0, 1},
		{"a full one is doubled", 8, 1, []float64{0.9}, 0, 2},
		{"as long as they are full", 8, 1, []float64{1, 2, 4}, 0, 8},
		{"but not beyond what there is", 3, 1, []float64{1, 2, 3, 3}, 0, 3},
		{"a lull changes nothing", 8, 4, append(repeat(calmFor-1, 0), 3), 0, 4},
		{"calm halves them", 8, 8, repeat(calmFor, 2), 0, 4},
		{"and again", 8, 8, repeat(2*calmFor, 0.5), 0, 2},
		{"down to one", 8, 8, repeat(3*calmFor, 0.1), 0, 1},
		{"three go to two", 3, 3, repeat(calmFor, 1.1), 0, 2},
		{"half that would be nearly full is not enough", 8, 4, repeat(100, 1.5), 0, 4},
		{"a long line at one that others take half of doubles it", 8, 1, []float64{0.4}, long, 2},
		{"a short one does not", 8, 1, repeat(100, 0.4), long - 1, 1},
		{"as long as there is one for each", 8, 1, repeat(100, 0.4), 2 * long, 4},
		{"what would be a line at half of them is not calm", 8, 4, repeat(100, 0.4), long, 4},
		{"what would not be one is", 8, 4, repeat(calmFor, 0.4), long - 1, 2},
	} {
		g := governor{most: c.most, now: c.from}
		for _, used := range c.used {
			g.judge(used, c.line)
		}
		if g.now != c.want {
			t.Errorf("%s: %d processors, want %d", c.name, g.now, c.want)
		}
	}
}

func TestGovernorSleepsWhenNothingGoesOn(t *testing.T) {
	g := governor{most: 4, now: 1}
	for _, c := range []struct {
		used float64
		want bool
	}{{0.001, true}, {0.5, false}, {0.001, true}} {
		if g.judge(c.used, 0); (g.interval == unhurried) != c.want {
			t.Errorf("after %v: interval %v", c.used, g.interval)
		}
	}
}
