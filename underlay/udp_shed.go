package underlay

import (
	"fmt"
	"net/netip"
)

// A Shed says how much to receive of the datagrams of one kind from one address.
type Shed struct {
	From netip.AddrPort
	Kind byte    // their first byte
	Keep float64 // the share that is received, by chance: 0 is none, 1 is all
}

// MaxSheds is how many a carrier takes: not more than an old kernel has room for beside a socket.
const MaxSheds = 16

// Shed has the system drop what sheds say, and no more what calls before this one said. What is dropped takes no room in the
// socket's buffer and costs nothing to read. Drops.ReceiveBuffer counts it. Messages that the system has joined from several
// datagrams are kept or dropped whole. After an error of the system nothing is dropped so. More than MaxSheds are an error that
// changes nothing.
func (u *UDP) Shed(sheds []Shed) error {
	if len(sheds) > MaxSheds {
		return fmt.Errorf("underlay: %d addresses to shed; at most %d", len(sheds), MaxSheds)
	}
	if err := shed(u.conn, sheds); err != nil {
		return closedOr("shed", err)
	}
	return nil
}
