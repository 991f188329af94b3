// Package lab builds small networks out of Linux network namespaces for integration tests:
// switches, hosts, routers, NATs, firewalls and slow lossy lines, all made and removed by the
// test itself, touching nothing of the machine it runs on.
//
//	n := lab.New(t)
//	public, home := n.Switch("public"), n.Switch("home")
//	relay := n.Host("relay", lab.On(public, "203.0.113.1/24", "2001:db8::1/64"))
//	nat := n.NAT("nat",
//		lab.On(public, "203.0.113.10/24", "2001:db8::10/64"), // outside
//		lab.On(home, "192.168.1.1/24", "fd01::1/64"))         // inside
//	a := n.Host("a", lab.On(home, "192.168.1.2/24", "fd01::2/64"), lab.Gateway("192.168.1.1", "fd01::1"))
//
//	pc := relay.ListenPacket("udp", "203.0.113.1:5040") // a socket in relay's namespace
//	out := a.Run("ip", "addr")                          // a process in a's namespace
//	nat.FlushNAT()
//
// [Network.Router] forwards without translation, [Network.Wire] joins two switches by a slow or lossy line,
// [Host.Block] drops packets, [Host.Capture] collects them, and hosts can move from one network to
// another while their processes run.
//
// Namespaces have no names and no mounts: a descriptor of this process, the processes
// started in them and the sockets made in them are all that keep them alive. A killed test
// therefore leaves no interface behind, and what it may leave, processes and temporary
// directories, carries a mark by which the next [New] finds and removes it.
//
// Everything here needs root. Without it [New] skips the test, or fails it where the
// environment variable CI is set. A method that cannot do its work fails the test with
// t.Fatal, so methods are to be called from the test's own goroutine unless they return
// an error.
//
// # Namespaces and goroutines
//
// A network namespace belongs to a thread. A socket stays in the namespace of the thread that
// made it, whoever uses it later; that is why sockets from [Host.Listen], [Host.ListenPacket]
// and [Host.Dial] may be handed to any code in the test's process. [Host.Do] runs a function
// on a thread of the namespace, but a goroutine started by that function runs
// elsewhere: sockets it makes are in the namespace the test began with. Code that makes its own
// sockets in goroutines is to be run as a process, with [Host.Command].
//
// The package is empty on systems other than Linux.
package lab
