// Bench measures adit beside what else there is, in one run on one machine, and prints one table.
//
//	sudo go run ./integration/bench                  about a quarter of an hour
//	sudo go run ./integration/bench -quick           under a minute; for a look, not for figures
//	sudo go run ./integration/bench -rows 'tcp' -contestants 'adit|wireguard' -rounds 1
//
// A row is of a class, and -rows and -contestants match anything within "class/name": -list shows what there is.
//
// It needs root for the network namespaces it makes, and on the first run the Go module proxy, from which the rivals
// come (their module is in the folder rivals). Nothing else should run meanwhile.
//
// All contestants of a class (contestants/class.go) are up at the same time, each in namespaces of its own, and
// all but one are idle. In each round each row is measured for each contestant in turn, in another order each
// round. The load generator (load) is the same for all. The table shows the median of
// the rounds, and the least and the greatest.
//
//   - row.go, rows_*.go: what is measured
//   - contestants: who is measured, and how it is set up
//   - load: the load generator; internal, rivals/wgstack: the programs around it
//   - run.go: the order of it all; build.go: what it needs
//   - results.go, table.go: what is shown
//
// Processor time is that of the tunnel's processes, user and system. Where the end of the tunnel and the load
// generator are one process it includes the load generator, for all such contestants alike.
package main
