// Siege attacks adit, as those would who mean it harm, and prints what held.
//
//	sudo go run ./integration/siege                     some minutes
//	sudo go run ./integration/siege -quick              under half a minute; for a look, not for figures
//	sudo go run ./integration/siege -run handshakes     only rows whose names match; -list shows them
//
// It needs root for the network namespaces it makes, and for forging sources. Nothing else should run meanwhile: some
// figures are of speed. It exits with 1 when something did not hold.
//
// Each row is an attack on processes of adit in a lab of their own, by processes of attackers, and says what was
// asked, what was seen, and whether that held:
//
//   - row.go: what a row is; rows_*.go: the attacks; programme.go: all of them
//   - field.go, bulk.go: relay and members, what they carry meanwhile, and how a newcomer gets in
//   - memory.go: what processes hold and allocate, and what they log
//   - foe.go: attackers as processes; internal/attacker: the program they are
//   - run.go, results.go, table.go: the order of it all, and what is shown
package main
