package config

import "fmt"

// What holds keys prints as under %+v, whatever the verb: keys are left out there. Under a verb that fits no
// struct, such as %s, fmt prints what a pointer leads to without asking the keys how.

type (
	plainPeer          Peer
	plainRelay         Relay
	plainRelayEndpoint RelayEndpoint
	plainRemote        Remote
)

func (p Peer) Format(f fmt.State, _ rune)          { fmt.Fprintf(f, "%+v", plainPeer(p)) }
func (r Relay) Format(f fmt.State, _ rune)         { fmt.Fprintf(f, "%+v", plainRelay(r)) }
func (r RelayEndpoint) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "%+v", plainRelayEndpoint(r)) }
func (r Remote) Format(f fmt.State, _ rune)        { fmt.Fprintf(f, "%+v", plainRemote(r)) }
