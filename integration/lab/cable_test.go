//go:build linux

package lab

import "testing"

// TestCable: hosts on a cable reach each other in both families, beside what else they are attached
// to, and lead routes over it.
func TestCable(t *testing.T) {
	n := New(t)
	lan := n.Switch("lan")
	a, b := n.Host("a", On(lan, "192.168.1.2/24"), Route("198.51.100.0/24", "10.0.1.2")), n.Host("b")
	n.Cable(Plug(a, "10.0.1.1/24", "fd01::1/64"), Plug(b, "10.0.1.2/24", "fd01::2/64"))
	for _, addrs := range [][2]string{{"10.0.1.1:7", "10.0.1.2:7"}, {"[fd01::1]:7", "[fd01::2]:7"}} {
		near, far := socket{t, a.ListenPacket("udp", addrs[0])}, socket{t, b.ListenPacket("udp", addrs[1])}
		near.send("ping", addrs[1])
		if from := far.want("ping"); from.String() != addrs[0] {
			t.Errorf("it came from %v, want %s", from, addrs[0])
		}
		far.send("pong", addrs[0])
		near.want("pong")
	}
	b.Own("198.51.100.0/24")
	near, far := socket{t, a.ListenPacket("udp", "10.0.1.1:9")}, socket{t, b.ListenPacket("udp", "198.51.100.7:9")}
	near.send("by way of b", "198.51.100.7:9")
	far.want("by way of b")
	if got := a.Interface(lan); got != "eth0" {
		t.Errorf("the switch is on %s, want eth0", got)
	}
}
