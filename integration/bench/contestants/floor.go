//go:build linux

package contestants

import "github.com/adit-overlay/adit/integration/lab"

// The floor is the kernel's TCP over the underlay itself.
var floor = Contestant{Name: "no tunnel", Floor: true, up: func(s *Site) *Pair {
	a, b := s.direct()
	return s.bare(a, b, "fd20::2")
}}

// wireKernel is the kernel's TCP over the line that the others have: no floor, as a stack of one's own may
// do better on such a line.
var wireKernel = Contestant{Name: "kernel, cubic", up: func(s *Site) *Pair {
	a, b, w := s.wired()
	p := s.bare(a, b, "")
	p.Wire = w
	return p
}}

func (s *Site) bare(a, b *lab.Host, ipv6 string) *Pair {
	return &Pair{A: s.sockets(a), B: s.sockets(b), IPv4: addrB, IPv6: ipv6}
}
