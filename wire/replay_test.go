package wire

import (
	"math/rand/v2"
	"testing"
)

// A windowOracle is the obvious Window: a set that forgets nothing.
type windowOracle struct {
	next uint64
	seen map[uint64]bool
}

func (o *windowOracle) accept(c uint64) bool {
	if c >= RejectAfterPackets || o.seen[c] || c+WindowSize < o.next {
		return false
	}
	o.seen[c] = true
	o.next = max(o.next, c+1)
	return true
}

// drive gives both the counters and compares verdicts.
func drive(t *testing.T, counters []uint64) {
	t.Helper()
	var w Window
	o := windowOracle{seen: map[uint64]bool{}}
	for i, c := range counters {
		if got, want := w.Accept(c), o.accept(c); got != want || w.Next() != o.next {
			t.Fatalf("step %d, counter %d: accepted %v, want %v; next %d, want %d", i, c, got, want, w.Next(), o.next)
		}
	}
}

func TestWindow(t *testing.T) {
	const last = RejectAfterPackets - 1
	for _, c := range []struct {
		name     string
		counters []uint64
	}{
		{"in order and again", []uint64{0, 1, 2, 0, 1, 2, 3}},
		{"starts late", []uint64{1000, 0, 999, 0, 1000}},
		{"oldest still told apart", []uint64{0, WindowSize - 1, 0, WindowSize, 1, 0}},
		{"just too old", []uint64{WindowSize + 5, 5, 6, 5, 6}},
		{"a block on", []uint64{63, 64, 63, 64, 127, 128, 127}},
		{"one ring on", []uint64{5, 5 + windowBlocks*64, 5, 6 + windowBlocks*64, 5 + windowBlocks*64}},
		{"a jump of many rings", []uint64{1, 1 << 30, 1<<30 - 1, 1, 1 << 30, 1<<30 - WindowSize, 1<<30 - WindowSize + 1}},
		{"the last counter and past it", []uint64{last, last, last + 1, 1 << 63, 1<<64 - 1, last - 1, last - WindowSize}},
		{"nothing past the last moves it", []uint64{1<<64 - 1, 0, 1, RejectAfterPackets, 2}},
	} {
		t.Run(c.name, func(t *testing.T) { drive(t, c.counters) })
	}
	var w Window
	if w.Next() != 0 || !w.Accept(0) || w.Next() != 1 {
		t.Error("the zero Window has seen something")
	}
}

func TestWindowTwoPaths(t *testing.T) {
	// Each counter arrives by a fast and by a slow path, in disorder, some never.
	r := rand.New(rand.NewPCG(1, 2))
	var counters []uint64
	for i := range uint64(60000) {
		if r.IntN(50) > 0 {
			counters = append(counters, i+uint64(r.IntN(64)))
		}
		if lag := uint64(r.IntN(2 * WindowSize)); lag <= i {
			counters = append(counters, i-lag)
		}
	}
	drive(t, counters)
}

func FuzzWindow(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 1, 255, 1, 255})
	f.Add([]byte{2, 3, 0, 9, 3, 200, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		// Each two bytes are a step from the last counter, on scales where blocks, rings and limits lie.
		var counters []uint64
		var at uint64
		for ; len(b) >= 2; b = b[2:] {
			n := uint64(b[1])
			switch b[0] % 8 {
			case 0:
				at += n
			case 1:
				at -= n
			case 2:
				at += n * 64
			case 3:
				at -= n * 64
			case 4:
				at += n * WindowSize
			case 5:
				at = RejectAfterPackets - n
			case 6:
				at = n << 56
			case 7:
				at -= WindowSize - n%3
			}
			counters = append(counters, at)
		}
		drive(t, counters)
	})
}

func BenchmarkWindow(b *testing.B) {
	var w Window
	for i := 0; b.Loop(); i++ {
		w.Accept(uint64(i) % RejectAfterPackets)
	}
}

func BenchmarkWindowTwoPaths(b *testing.B) {
	var w Window
	for i := 0; b.Loop(); i++ {
		w.Accept(uint64(i))
		w.Accept(uint64(i) - min(uint64(i), 700))
	}
}
