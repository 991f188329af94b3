// Package roster says who is who in the networks of bench and siege: members by number, whose keys and
// addresses every program can work out for itself. The keys are worth nothing.
package roster

import (
	"crypto/sha256"
	"fmt"
	"net/netip"

	"github.com/adit-overlay/adit/wire"
)

// Relay is the number of the relay's key. Members count from 1.
const Relay = 0

// Key is the private key of a member.
func Key(n int) wire.PrivateKey {
	return sha256.Sum256(fmt.Appendf(nil, "adit bench member %d", n))
}

// IPv4 is the overlay address of a member.
func IPv4(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 64 + byte(n>>16), byte(n >> 8), byte(n)})
}

// IPv6 is the other overlay address of a member.
func IPv6(n int) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 3: 9, 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)})
}

// The networks all those addresses are in.
const (
	Bits4 = 10
	Bits6 = 64
)
