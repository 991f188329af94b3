// Soak runs an overlay for a long time, with traffic between all its members, while the network and its processes are dealt
// blow after blow, and says whether all of it held.
//
//	sudo go run ./integration/soak -for 30m
//	go run ./integration/soak -for 5m            without root: everything in one process, on loopback
//	sudo go run ./integration/soak -seed 7 -json soak.json
//	go run ./integration/soak -for 5m -untimed   on a machine with other work
//
// What is dealt to whom, for how long and in what order follows from the seed, which is printed, and -seed repeats it. The instants
// do not repeat: each blow waits until all has recovered from the one before.
//
// It holds when
//
//   - every byte that arrived is the one that was sent, in its place, and no datagram arrived twice (traffic);
//   - after the cause of each blow was over, all traffic between all members was back in time: 2 s; after a relay's restart 5 s,
//     and also after outages of more than 5 s, during which others ask less and less often, such as the absence of a member that joins again;
//   - TCP connections live on: one dies only when the process at one of its ends did;
//   - while nothing is dealt no request fails, and hardly a datagram is lost (one in a thousand is allowed for), though the keys are
//     renewed every ten seconds;
//   - the memory, goroutines and descriptors of each process are as many late in its life as early in it,
//     while there are as many members (judge.go);
//   - no process ends by itself, and each that is asked to ends in order.
//
// Otherwise the exit status is 1, and the report says what was wrong, with what processes wrote last.
//
// What was late is wrong only on a machine that could have been in time: how long processes wait for a processor is measured throughout
// (package strain), and what came late while they did so is counted and not judged. On a machine with other work, -untimed judges no
// time at all: neither recoveries, nor what fails for want of an answer, nor losses. What never comes, within two minutes, is wrong in any case.
//
//   - soak.go: the order of it all; schedule.go: what is dealt when
//   - ground_lab.go: namespaces with NATs, a line that can be bad, real processes; ground_loopback.go: one process, any system
//   - company.go: the members, and their traffic (package traffic)
//   - sample.go, judge.go: what processes hold
//   - report.go: what is shown
package main
