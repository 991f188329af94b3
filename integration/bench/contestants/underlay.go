//go:build linux

package contestants

import "github.com/adit-overlay/adit/integration/lab"

// Addresses of hosts on the underlay.
const (
	addrA, addrB = "10.200.0.1", "10.200.0.2" // direct

	addrRelayA, addrRelayB = "10.201.1.1", "10.201.2.1" // the relay, as A and as B see it
)

// direct makes two hosts with a cable between them.
func (s *Site) direct() (a, b *lab.Host) {
	a, b = s.host("a"), s.host("b")
	s.Cable(lab.Plug(a, addrA+"/24", "fd20::1/64"), lab.Plug(b, addrB+"/24", "fd20::2/64"))
	return a, b
}

// relayed makes two hosts that reach the third only, which does not route between them.
func (s *Site) relayed() (a, relay, b *lab.Host) {
	a, relay, b = s.host("a"), s.host("relay"), s.host("b")
	s.Cable(lab.Plug(a, "10.201.1.2/24"), lab.Plug(relay, addrRelayA+"/24"))
	s.Cable(lab.Plug(b, "10.201.2.2/24"), lab.Plug(relay, addrRelayB+"/24"))
	return a, relay, b
}

// wired makes two hosts with a line between them that can be made slow and lossy.
func (s *Site) wired() (a, b *lab.Host, w *lab.Wire) {
	near, far := s.Switch(s.Name+" near"), s.Switch(s.Name+" far")
	a = s.host("a", lab.On(near, addrA+"/24"))
	b = s.host("b", lab.On(far, addrB+"/24"))
	return a, b, s.Wire(near, far, lab.Impairment{})
}

// host makes a host of the site, with room for the connections of the load.
func (s *Site) host(name string, opts ...lab.Option) *lab.Host {
	h := s.Host(s.Name+" "+name, opts...)
	h.Sysctl("net/ipv4/ip_local_port_range", "1024 65535")
	h.Sysctl("net/ipv4/tcp_tw_reuse", "1")
	return h
}
