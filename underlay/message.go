package underlay

import (
	"errors"
	"fmt"
	"net/netip"
)

// check reports what makes m impossible to send, or nil.
func (m *Message) check() error {
	switch {
	case len(m.Buf) == 0:
		return errors.New("a message without bytes")
	case len(m.Buf) > MaxMessage:
		return fmt.Errorf("a message of %d bytes, more than %d", len(m.Buf), MaxMessage)
	case m.Seg < 1 || m.Seg > len(m.Buf):
		return fmt.Errorf("a segment size of %d in a message of %d bytes", m.Seg, len(m.Buf))
	case m.datagrams() > MaxSegments:
		return fmt.Errorf("a message of %d datagrams, more than %d", m.datagrams(), MaxSegments)
	}
	return nil
}

// checkOne is Message.check for what must be one datagram.
func (m *Message) checkOne() error {
	if err := m.check(); err != nil {
		return err
	}
	if m.Seg < len(m.Buf) {
		return fmt.Errorf("a probe of %d datagrams", m.datagrams())
	}
	return nil
}

// checkAddressed is Message.check for a carrier with more than one destination.
func checkAddressed(m *Message) error {
	if !m.Addr.IsValid() {
		return errors.New("a message without an address")
	}
	return m.check()
}

// datagrams returns how many datagrams m holds. Seg must be positive.
func (m *Message) datagrams() int {
	return (len(m.Buf) + m.Seg - 1) / m.Seg
}

// unmapped returns a without the IPv4-in-IPv6 form, the one way addresses are written here.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
