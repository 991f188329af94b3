// Package integration runs adit as its users do: the command, in processes of their own, on networks
// with NATs, slow lines and restarts between them. It has no code but tests.
//
//	sudo go test ./integration          # everything, about two minutes
//	sudo go test -run NAT -v ./integration
//
// The networks are those of package lab: Linux network namespaces, made and removed by each test. That
// needs root. Without it the tests are skipped, or fail where the environment variable CI is set. The peers that
// are to need no privilege run as nobody, without /dev/net/tun, whoever runs the tests.
//
//   - nat_test.go: peers behind two NATs meet at a relay, in every mode, and what is seen on the way
//   - direct_test.go: peers that know each other need no relay
//   - directory_test.go: a peer that knows its relay alone reaches every member
//   - rekey_test.go: new keys under load cost no packet
//   - recovery_test.go: restarts, outages, new addresses and forgotten mappings, and the seconds they cost
//   - relayloss_test.go: a relay that goes away costs nothing where there is a direct path
//   - mtu_test.go: wide paths, and narrow ones of which nobody tells
//   - advertise_test.go: a network behind a peer without root
//   - exit_test.go: all of a host's traffic through another peer
//   - leak_test.go: nothing goes beside a full tunnel, and what does is told and can be stopped
//   - kill_test.go: kills at any moment
//   - command_test.go: the demo, the choice of mode, and what is left of a peer that ended
//
// The verbs they are written in are in overlay_test.go, what makes and runs peers, and access_test.go, what uses the
// overlay; folder internal has the services at the other end, and package strain, by which times are judged where the machine could have
// been in time. When a test fails, the output of all its processes is shown.
package integration
