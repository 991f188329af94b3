// Package stage is what the programs that measure adit in a lab stand on: bench and siege. A [Stage] is to a program
// what a testing.T is to a test; the rest reads what processes cost, and on what machine it was.
package stage
