package peer

import (
	"net/netip"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/netstack"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// Status is a snapshot of a peer.
type Status struct {
	Name       string
	PublicKey  wire.PublicKey
	Mode       config.Mode // ModeTUN or ModeNetstack
	ModeReason string      // why that one
	Interface  string      // TUN mode: its name
	MTU        int         // of the overlay, here
	MTUReason  string      // why that one
	Addresses  []netip.Prefix
	UDPAddress netip.AddrPort // local; zero without a UDP socket
	Remotes    []engine.RemoteStatus

	Engine   engine.Stats
	Underlay *underlay.Stats // nil without a UDP socket
	Netstack *netstack.Stats // nil in TUN mode
}

// Status returns the peer's state and counters as they are now.
func (p *Peer) Status() Status {
	st := Status{
		Name: p.cfg.Name, PublicKey: p.PublicKey(),
		Mode: p.device.mode, ModeReason: p.device.why, Interface: p.device.iface, MTU: p.mtu, MTUReason: p.mtuReason,
		Addresses: p.cfg.Addresses, Engine: p.engine.Stats(),
	}
	for _, r := range p.engine.Remotes() {
		st.Remotes = append(st.Remotes, r.Status())
	}
	if p.udp != nil {
		st.UDPAddress = p.udp.LocalAddr()
		s := p.udp.Stats()
		st.Underlay = &s
	}
	if p.device.stack != nil {
		s := p.device.stack.Stats()
		st.Netstack = &s
	}
	return st
}
