package peer

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"time"

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

	// Carriers carry datagrams in addition to the UDP socket, or, with NoUDP, in its place. The relay
	// owns them, and closes them when StartRelay fails as well.
	Carriers []underlay.Carrier
	NoUDP    bool // open no UDP socket: members come by Carriers and Link
}

// A Relay carries sealed datagrams between members, from StartRelay to Close. When its
// configuration gives it addresses it is a peer as well.
type Relay struct {
	relay  *relay.Relay
	udp    *underlay.UDP // nil with RelayConfig.NoUDP
	device device        // empty when it is no peer
	cfg    RelayConfig

	mtu       int // of its overlay
	mtuReason string

	started time.Time
}

// OpenRelay starts the relay that the file at path describes.
func OpenRelay(ctx context.Context, path string) (*Relay, error) {
	c, err := config.LoadRelay(path)
	if err != nil {
		return nil, err
	}
	return StartRelay(ctx, RelayConfig{Relay: *c})
}

// StartRelay starts a relay. The context bounds the start alone. After an error nothing is left running
// or open.
func StartRelay(ctx context.Context, cfg RelayConfig) (*Relay, error) {
	r, err := startRelay(ctx, cfg)
	if err != nil {
		closeCarriers(cfg.Carriers)
		return nil, fmt.Errorf("relay: %w", err)
	}
	return r, nil
}

func startRelay(ctx context.Context, cfg RelayConfig) (*Relay, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ec := engine.Config{
		PrivateKey: cfg.PrivateKey, PresharedKey: cfg.PresharedKey, Addresses: cfg.Addresses,
		RekeyAfter: cfg.RekeyAfter, Keepalive: cfg.Keepalive, Logger: cfg.Logger,
	}
	r := &Relay{cfg: cfg, started: time.Now()}
	if len(cfg.Addresses) > 0 {
		var routes []netip.Prefix
		for _, m := range cfg.Members {
			routes = append(routes, m.AllowedIPs...)
		}
		mtu, because := cfg.OverlayMTU()
		d, err := openDevice(ctx, deviceConfig{
			Mode: cfg.Mode, Interface: cfg.Interface, MTU: mtu, Addresses: cfg.Addresses, Routes: routes, Logger: cfg.Logger,
		})
		if err != nil {
			return nil, err
		}
		r.device, ec.Device, ec.MTU, ec.Reaching = d, d.Device, mtu, d.reach
		r.mtu, r.mtuReason = mtu, because
	}
	members := make([]relay.Member, len(cfg.Members))
	for i, m := range cfg.Members {
		members[i] = relay.Member{Name: m.Name, PublicKey: m.PublicKey, AllowedIPs: m.AllowedIPs}
	}
	core, err := relay.New(relay.Config{
		Engine: ec, Name: cfg.Name, Members: members, Limits: relayLimits(cfg.Limits), Logger: cfg.Logger,
	})
	if err != nil {
		if ec.Device != nil {
			ec.Device.Close()
		}
		return nil, err
	}
	r.relay = core
	if err := r.populate(ctx); err != nil {
		core.Close()
		return nil, err
	}
	core.Start()
	return r, nil
}

// listen is where the UDP socket is opened; nowhere if there is to be none.
func (c *RelayConfig) listen() string { return listenAt(c.Listen, c.NoUDP) }

func relayLimits(l config.Limits) relay.Limits {
	if l.CircuitsPerMember == 0 {
		l.CircuitsPerMember = config.DefaultCircuits
	}
	return relay.Limits{Circuits: l.CircuitsPerMember, BytesPerSecond: int(min(l.BytesPerSecondPerMember, math.MaxInt))}
}

// populate gives the relay its carriers.
func (r *Relay) populate(ctx context.Context) error {
	if !r.cfg.NoUDP {
		udp, err := listenUDP(ctx, r.cfg.listen(), r.cfg.UDP, r.cfg.Logger)
		if err != nil {
			return err
		}
		r.udp = udp
		if err := r.relay.AddCarrier(udp); err != nil {
			return err
		}
	}
	for _, c := range r.cfg.Carriers {
		if err := r.relay.AddCarrier(c); err != nil {
			return err
		}
	}
	return nil
}

// Link carries datagrams over conn, as Peer.Link does at the other end.
func (r *Relay) Link(conn net.Conn) error { return link(r.relay, conn, r.cfg.Logger) }

// Close ends the relay, and returns when all its goroutines have ended.
func (r *Relay) Close() error { return r.relay.Close() }

// PublicKey is what members know the relay by.
func (r *Relay) PublicKey() wire.PublicKey { return r.relay.Engine().PublicKey() }
