package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// MaxPrefixes is the most prefixes of a member: any control message with a member in it, sealed and
// in a circuit, is then shorter than 1200 bytes.
const MaxPrefixes = 56

// MaxName is the most bytes of a member's name.
const MaxName = 63

// A Member is what a relay's directory says of one member (§14).
type Member struct {
	Key      PublicKey
	Name     string         // a DNS label in lower case; may be empty
	Online   bool           // has a session with the relay
	Observed netip.AddrPort // where the relay sees it; the zero value if it does not
	Prefixes []netip.Prefix // the overlay addresses that are its own
}

const memberOnline = 1 << 0

// CheckName returns an error unless s is what a member may be called: 1 to MaxName lower-case letters,
// digits and hyphens, with no hyphen at either end.
func CheckName(s string) error {
	if len(s) == 0 || len(s) > MaxName {
		return fmt.Errorf("name of %d characters; want 1 to %d", len(s), MaxName)
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("name %q: want lower-case letters, digits and hyphens only", s)
		}
	}
	if s[0] == '-' || s[len(s)-1] == '-' {
		return fmt.Errorf("name %q: a hyphen may not be first or last", s)
	}
	return nil
}

// CheckPrefix returns an error unless p can be written in a Member: valid, with no bit set beyond its length,
// and not IPv4 mapped into IPv6.
func CheckPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return errors.New("prefix is not valid")
	case p.Addr().Is4In6():
		return fmt.Errorf("prefix %v: write IPv4 as IPv4, not mapped", p)
	case p != p.Masked():
		return fmt.Errorf("prefix %v: bits are set beyond its length; want %v", p, p.Masked())
	}
	return nil
}

func (m *Member) append(b []byte) ([]byte, error) {
	if err := m.Key.Check(); err != nil {
		return nil, err
	}
	if m.Name != "" {
		if err := CheckName(m.Name); err != nil {
			return nil, err
		}
	}
	if len(m.Prefixes) > MaxPrefixes {
		return nil, fmt.Errorf("%d prefixes; at most %d", len(m.Prefixes), MaxPrefixes)
	}
	b = append(b, m.Key[:]...)
	b = append(b, byte(len(m.Name)))
	b = append(b, m.Name...)
	var flags byte
	if m.Online {
		flags = memberOnline
	}
	b, err := appendAddrPort(append(b, flags), m.Observed)
	if err != nil {
		return nil, err
	}
	b = append(b, byte(len(m.Prefixes)))
	for _, p := range m.Prefixes {
		if err := CheckPrefix(p); err != nil {
			return nil, err
		}
		a := p.Addr().AsSlice()
		b = append(b, byte(len(a)))
		b = append(b, a...)
		b = append(b, byte(p.Bits()))
	}
	return b, nil
}

func (r *reader) member() (m Member) {
	m.Key = r.key()
	m.Name = string(r.take(int(r.byte())))
	if m.Name != "" {
		r.require(CheckName(m.Name) == nil)
	}
	flags := r.byte()
	r.require(flags&^memberOnline == 0)
	m.Online = flags&memberOnline != 0
	m.Observed = r.addrPort()
	n := int(r.byte())
	r.require(n <= MaxPrefixes)
	for i := 0; i < n && !r.bad; i++ {
		a := r.addr(int(r.byte()))
		p := netip.PrefixFrom(a, int(r.byte()))
		r.require(CheckPrefix(p) == nil)
		m.Prefixes = append(m.Prefixes, p)
	}
	return m
}

// appendAddrPort writes an address as its length, 0, 6 or 18, and then address and port. It unmaps IPv4, as
// dual-stack sockets map it, and leaves out a zone, which means nothing elsewhere.
func appendAddrPort(b []byte, a netip.AddrPort) ([]byte, error) {
	if !a.IsValid() {
		return append(b, 0), nil
	}
	if a.Port() == 0 {
		return nil, fmt.Errorf("address %v has no port", a)
	}
	s := a.Addr().Unmap().AsSlice()
	b = append(b, byte(len(s)+2))
	return binary.BigEndian.AppendUint16(append(b, s...), a.Port()), nil
}

func (r *reader) addrPort() netip.AddrPort {
	n := int(r.byte())
	if n == 0 {
		return netip.AddrPort{}
	}
	a := r.addr(n - 2)
	port := r.uint16()
	r.require(port != 0)
	return netip.AddrPortFrom(a, port)
}

// addr takes an address of n bytes, 4 or 16.
func (r *reader) addr(n int) netip.Addr {
	r.require(n == 4 || n == 16)
	a, _ := netip.AddrFromSlice(r.take(n))
	r.require(!a.Is4In6())
	return a
}
