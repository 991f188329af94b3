// Package stage is what the programs bench, siege and soak have in common.
//
//   - main.go: a program, its signals and exit status
//   - report.go: tables and figures
//   - stage.go: a [Stage], which is to a program in a lab what a testing.T is to a test
//   - command.go: the go command and others
//   - process.go, machine.go: what processes cost, and on what machine it was
//
// Off Linux, where there are no labs, it has the first two alone.
package stage
