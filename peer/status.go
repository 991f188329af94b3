package peer

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/netstack"
	"github.com/adit-overlay/adit/relay"
	"github.com/adit-overlay/adit/tun"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// Status is a snapshot of a peer or a relay. docs/status.md describes its fields by their names in JSON.
type Status struct {
	Name       string                `json:"name,omitempty"`
	PublicKey  wire.PublicKey        `json:"public_key"`
	Started    time.Time             `json:"started"`
	Mode       config.Mode           `json:"mode,omitempty"`        // ModeTUN or ModeNetstack; empty of a relay that is no peer
	ModeReason string                `json:"mode_reason,omitempty"` // why that one
	Interface  string                `json:"interface,omitempty"`   // TUN mode: its name
	MTU        int                   `json:"mtu,omitempty"`         // of the overlay, here
	MTUReason  string                `json:"mtu_reason,omitempty"`  // why that one
	Addresses  []netip.Prefix        `json:"addresses"`
	UDPAddress netip.AddrPort        `json:"udp_address,omitzero"` // local; zero without a UDP socket
	Remotes    []engine.RemoteStatus `json:"remotes"`              // sorted by name; of a relay, its members

	Engine   engine.Stats    `json:"engine"`
	Underlay *underlay.Stats `json:"underlay,omitempty"` // of the UDP socket; nil without
	Links    *underlay.Stats `json:"links,omitempty"`    // of the other carriers there are now, in sum; nil without
	TUN      *tun.Stats      `json:"tun,omitempty"`      // nil but in TUN mode
	Netstack *netstack.Stats `json:"netstack,omitempty"` // nil but in netstack mode
	Relay    *relay.Stats    `json:"relay,omitempty"`    // nil but of a relay
}

// Status returns the peer's state and counters as they are now.
func (p *Peer) Status() Status {
	st := statusOf(p.engine, p.engine.Carriers(), p.udp, p.device)
	st.Name, st.Started, st.MTU, st.MTUReason, st.Addresses = p.cfg.Name, p.started, p.mtu, p.mtuReason, p.Addresses()
	return st
}

// Status returns the relay's state and counters as they are now.
func (r *Relay) Status() Status {
	st := statusOf(r.relay.Engine(), r.relay.Carriers(), r.udp, r.device)
	st.Name, st.Started, st.MTU, st.MTUReason, st.Addresses = r.cfg.Name, r.started, r.mtu, r.mtuReason, append([]netip.Prefix{}, r.cfg.Addresses...)
	s := r.relay.Stats()
	st.Relay = &s
	return st
}

// statusOf is what peers and relays have in common.
func statusOf(e *engine.Engine, carriers []underlay.Carrier, udp *underlay.UDP, d device) Status {
	st := Status{PublicKey: e.PublicKey(), Mode: d.mode, ModeReason: d.why, Interface: d.iface, Engine: e.Stats(), Remotes: []engine.RemoteStatus{}}
	for _, r := range e.Remotes() {
		st.Remotes = append(st.Remotes, r.Status())
	}
	slices.SortFunc(st.Remotes, func(a, b engine.RemoteStatus) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.PublicKey.Compare(b.PublicKey))
	})
	if udp != nil {
		st.UDPAddress = udp.LocalAddr()
		s := udp.Stats()
		st.Underlay = &s
	}
	st.Links = linkStats(carriers, udp)
	switch d := d.Device.(type) {
	case *netstack.Stack:
		s := d.Stats()
		st.Netstack = &s
	case *tun.Device:
		s := d.Stats()
		st.TUN = &s
	}
	return st
}

// linkStats sums up all carriers but the UDP socket.
func linkStats(carriers []underlay.Carrier, udp *underlay.UDP) (sum *underlay.Stats) {
	for _, c := range carriers {
		counts, ok := c.(interface{ Stats() underlay.Stats })
		switch {
		case !ok || c == underlay.Carrier(udp):
		case sum == nil:
			s := counts.Stats()
			sum = &s
		default:
			*sum = sum.Add(counts.Stats())
		}
	}
	return sum
}
