package main

import "testing"

func TestMemoryIsGivenBackWhenItIsMuchAndNothingGoesOn(t *testing.T) {
	const mb = 1 << 20
	for _, tt := range []struct {
		name           string
		kept, resident uint64
		used           float64
		due            bool
	}{
		{"quiet, as it was", 20 * mb, 20 * mb, 0, false},
		{"quiet, a little more", 20 * mb, 27 * mb, 0, false},
		{"quiet, much more", 20 * mb, 30 * mb, 0, true},
		{"busy, much more", 20 * mb, 300 * mb, 0.5, false},
		{"quiet, a large process, a little more", 400 * mb, 450 * mb, 0.1, false},
		{"quiet, a large process, much more", 400 * mb, 600 * mb, 0.1, true},
		{"quiet, less", 400 * mb, 20 * mb, 0, false},
	} {
		if got := (&thrift{kept: tt.kept}).due(tt.used, tt.resident); got != tt.due {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	if n := resident(); n < mb || n > 1<<40 {
		t.Errorf("%d bytes are resident", n)
	}
}
