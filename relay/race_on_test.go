//go:build race

package relay

// raceEnabled: the race detector makes everything some ten times slower.
const raceEnabled = true
