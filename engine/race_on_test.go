//go:build race

package engine

// raceEnabled: the race detector makes everything some ten times slower.
const raceEnabled = true
