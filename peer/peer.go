// Package peer is how a program is a member of an adit overlay network. It needs no
// privilege: without a TUN device, the overlay ends in a TCP/IP stack inside the program.
//
//	p, err := peer.Open(ctx, "adit.yaml")
//	...
//	defer p.Close()
//	conn, err := p.Dial("tcp", "10.9.0.3:80") // or "web.adit:80", or "web:80"
//
// The calls are those of package net, and keep its contracts. They are the same whether the overlay
// ends in the program or in the kernel.
package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/netstack"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// Config says what a peer is to be: what its file says, and what a file cannot say.
type Config struct {
	config.Peer

	// Logger gets what an operator should know; nil discards it.
	Logger *slog.Logger

	// Host is how the networks in Advertise are reached. The zero Host is the standard behaviour.
	Host netstack.Host

	// Carriers carry the overlay in addition to the UDP socket, or, with NoUDP, in its place. The peer
	// owns them.
	Carriers []underlay.Carrier
	NoUDP    bool // open no UDP socket: all others are reached by Carriers and Link
}

// A Peer is a member of an overlay network, from Start to Close. Its methods may be called by many
// goroutines.
type Peer struct {
	engine *engine.Engine
	device device
	udp    *underlay.UDP // nil with Config.NoUDP
	cfg    Config

	mu      sync.Mutex
	clients []*http.Client
	closed  bool
}

// Open starts the peer that the file at path describes.
func Open(ctx context.Context, path string) (*Peer, error) {
	c, err := config.LoadPeer(path)
	if err != nil {
		return nil, err
	}
	return Start(ctx, Config{Peer: *c})
}

// Start starts a peer. The context bounds the start alone. Sessions come up afterwards, by
// themselves: a dial waits for the one it needs, and Ready tells of the first.
func Start(ctx context.Context, cfg Config) (*Peer, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Addresses) == 0 {
		return nil, errors.New("peer: no overlay addresses")
	}
	d, err := openDevice(ctx, deviceConfig{
		Mode: cfg.Mode, Interface: cfg.Interface, MTU: cfg.MTU, Addresses: cfg.Addresses,
		Routes: cfg.routes(), Endpoints: cfg.endpoints(), Advertise: cfg.Advertise, Host: cfg.Host, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("peer: %w", err)
	}
	e, err := engine.New(engine.Config{
		PrivateKey: cfg.PrivateKey, PresharedKey: cfg.PresharedKey, Device: d.Device, Addresses: cfg.Addresses,
		RekeyAfter: cfg.RekeyAfter, Keepalive: cfg.Keepalive, Logger: cfg.Logger,
	})
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("peer: %w", err)
	}
	p := &Peer{engine: e, device: d, cfg: cfg}
	if err := p.populate(ctx); err != nil {
		e.Close()
		return nil, fmt.Errorf("peer: %w", err)
	}
	e.Start()
	return p, nil
}

// populate gives the engine its carriers and remotes.
func (p *Peer) populate(ctx context.Context) error {
	if !p.cfg.NoUDP {
		udp, err := listenUDP(ctx, p.cfg.Listen, p.cfg.UDP, p.cfg.Logger)
		if err != nil {
			return err
		}
		p.udp = udp
		if err := p.engine.AddCarrier(udp); err != nil {
			return err
		}
	}
	for i, r := range p.cfg.Relays {
		_, err := p.engine.AddRemote(engine.RemoteConfig{
			PublicKey: r.PublicKey, PresharedKey: p.cfg.PresharedKey, Endpoint: r.Endpoint, Relay: true,
		})
		if err != nil {
			return fmt.Errorf("relays[%d]: %w", i, err)
		}
	}
	for i, r := range p.cfg.Peers {
		_, err := p.engine.AddRemote(engine.RemoteConfig{
			Name: r.Name, PublicKey: r.PublicKey, PresharedKey: r.PresharedKey, Endpoint: r.Endpoint, AllowedIPs: r.AllowedIPs,
		})
		if err != nil {
			return fmt.Errorf("peers[%d]: %w", i, err)
		}
	}
	for _, c := range p.cfg.Carriers {
		if err := p.engine.AddCarrier(c); err != nil {
			return err
		}
	}
	return nil
}

func listenUDP(ctx context.Context, listen string, c config.UDP, log *slog.Logger) (*underlay.UDP, error) {
	if listen == "" {
		listen = config.DefaultListen
	}
	return underlay.ListenUDP(ctx, listen, underlay.Config{Logger: log, DisableGSO: c.NoGSO, DisableGRO: c.NoGRO})
}

// routes are the overlay addresses of the remotes known in advance.
func (c *Config) routes() []netip.Prefix {
	var all []netip.Prefix
	for _, r := range c.Peers {
		all = append(all, r.AllowedIPs...)
	}
	return all
}

// endpoints are where remotes and relays are on the underlay.
func (c *Config) endpoints() []string {
	var all []string
	for _, r := range c.Relays {
		all = append(all, r.Endpoint)
	}
	for _, r := range c.Peers {
		if r.Endpoint != "" {
			all = append(all, r.Endpoint)
		}
	}
	return all
}

// Ready returns when there is a session, with a relay or another peer, so that traffic can flow.
// A peer that only waits for others to come is ready at once.
func (p *Peer) Ready(ctx context.Context) error {
	if len(p.cfg.endpoints()) == 0 {
		return nil
	}
	select {
	case <-p.engine.Ready():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("peer: no session yet: %w", ctx.Err())
	}
}

// Link carries the overlay over conn, which the peer owns from then on and may be anything: a
// TLS connection, a pipe, the standard streams of a process. Remotes that are configured without an endpoint are
// looked for at its other end. Losing the connection loses the path by it, no more.
func (p *Peer) Link(conn net.Conn) error {
	return p.engine.AddCarrier(underlay.NewStream(conn, underlay.Config{Logger: p.cfg.Logger}))
}

// HTTPClient returns a client whose connections go through the overlay. Close closes its idle
// connections.
func (p *Peer) HTTPClient() *http.Client {
	c := &http.Client{Transport: &http.Transport{
		DialContext:           p.DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          100,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
	}}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clients = append(p.clients, c)
	return c
}

// Close leaves the overlay: connections and listeners are closed, and all goroutines have ended when it
// returns. It may be called more than once.
func (p *Peer) Close() error {
	p.mu.Lock()
	clients := p.clients
	p.clients, p.closed = nil, true
	p.mu.Unlock()
	for _, c := range clients {
		c.CloseIdleConnections()
	}
	return p.engine.Close()
}

func (p *Peer) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// PublicKey is the peer's own.
func (p *Peer) PublicKey() wire.PublicKey { return p.engine.PublicKey() }

// Addresses are the peer's own on the overlay.
func (p *Peer) Addresses() []netip.Prefix { return p.cfg.Addresses }
