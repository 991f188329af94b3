package peer

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/relay"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// RelayConfig says what a relay is to be: what its file says, and what a file cannot say.
type RelayConfig struct {
	config.Relay

	Logger *slog.Logger // nil discards

	// Carriers carry datagrams in addition to the UDP socket. The relay owns them.
	Carriers []underlay.Carrier
}

// A Relay carries sealed datagrams between members, from StartRelay to Close. When its
// configuration gives it addresses it is a peer as well.
type Relay struct {
	relay  *relay.Relay
	udp    *underlay.UDP
	device device // empty when it is no peer
	cfg    RelayConfig
}

// OpenRelay starts the relay that the file at path describes.
func OpenRelay(ctx context.Context, path string) (*Relay, error) {
	c, err := config.LoadRelay(path)
	if err != nil {
		return nil, err
	}
	return StartRelay(ctx, RelayConfig{Relay: *c})
}

// StartRelay starts a relay. The context bounds the start alone.
func StartRelay(ctx context.Context, cfg RelayConfig) (*Relay, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ec := engine.Config{
		PrivateKey: cfg.PrivateKey, PresharedKey: cfg.PresharedKey, Addresses: cfg.Addresses,
		RekeyAfter: cfg.RekeyAfter, Keepalive: cfg.Keepalive, Logger: cfg.Logger,
	}
	r := &Relay{cfg: cfg}
	if len(cfg.Addresses) > 0 {
		var routes []netip.Prefix
		for _, m := range cfg.Members {
			routes = append(routes, m.AllowedIPs...)
		}
		d, err := openDevice(ctx, deviceConfig{
			Mode: cfg.Mode, Interface: cfg.Interface, MTU: cfg.MTU, Addresses: cfg.Addresses, Routes: routes, Logger: cfg.Logger,
		})
		if err != nil {
			return nil, fmt.Errorf("relay: %w", err)
		}
		r.device, ec.Device = d, d.Device
	}
	members := make([]relay.Member, len(cfg.Members))
	for i, m := range cfg.Members {
		members[i] = relay.Member{Name: m.Name, PublicKey: m.PublicKey, AllowedIPs: m.AllowedIPs}
	}
	core, err := relay.New(relay.Config{
		Engine: ec, Name: cfg.Name, Members: members, Logger: cfg.Logger,
		Limits: relay.Limits{Circuits: cfg.Limits.CircuitsPerMember, BytesPerSecond: int(cfg.Limits.BytesPerSecondPerMember)},
	})
	if err != nil {
		if ec.Device != nil {
			ec.Device.Close()
		}
		return nil, err
	}
	r.relay = core
	if r.udp, err = listenUDP(ctx, cfg.Listen, cfg.UDP, cfg.Logger); err != nil {
		core.Close()
		return nil, fmt.Errorf("relay: %w", err)
	}
	for _, c := range append([]underlay.Carrier{r.udp}, cfg.Carriers...) {
		if err := core.AddCarrier(c); err != nil {
			core.Close()
			return nil, fmt.Errorf("relay: %w", err)
		}
	}
	core.Start()
	return r, nil
}

// Close ends the relay, and returns when all its goroutines have ended.
func (r *Relay) Close() error { return r.relay.Close() }

// PublicKey is what members know the relay by.
func (r *Relay) PublicKey() wire.PublicKey { return r.relay.Engine().PublicKey() }

// RelayStatus is a snapshot of a relay.
type RelayStatus struct {
	PublicKey  wire.PublicKey
	UDPAddress netip.AddrPort
	Mode       config.Mode // as a peer; empty when it is none
	ModeReason string
	Addresses  []netip.Prefix
	Members    []engine.RemoteStatus
	Forwarded  relay.Stats
	Engine     engine.Stats
	Underlay   underlay.Stats
}

// Status returns the relay's state and counters as they are now.
func (r *Relay) Status() RelayStatus {
	st := RelayStatus{
		PublicKey: r.PublicKey(), UDPAddress: r.udp.LocalAddr(), Mode: r.device.mode, ModeReason: r.device.why,
		Addresses: r.cfg.Addresses, Forwarded: r.relay.Stats(), Engine: r.relay.Engine().Stats(), Underlay: r.udp.Stats(),
	}
	for _, m := range r.relay.Engine().Remotes() {
		st.Members = append(st.Members, m.Status())
	}
	return st
}
