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
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/netstack"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// Config says what a peer is to be: what its file says, and what a file cannot say. PrivateKey and
// Addresses are needed; of all else the zero value is useful. It is not changed after Start.
//
// Socks and Log are for the command, which serves the one and makes the logger by the other; Start
// leaves them alone. A relay in Relays may do without an Endpoint: it is then looked for at the far ends of Link.
type Config struct {
	config.Peer

	// Logger gets what an operator should know; nil discards it.
	Logger *slog.Logger

	// Host is how the networks in Advertise are reached. The zero Host is the standard behaviour.
	Host netstack.Host

	// Limits bound what other peers may make this one hold for the networks in Advertise. Zero fields are
	// those of AdvertiseLimits, and else the defaults of docs/configuration.md.
	Limits netstack.Limits

	// Carriers carry the overlay in addition to the UDP socket, or, with NoUDP, in its place. The peer
	// owns them, and closes them when Start fails as well.
	Carriers []underlay.Carrier
	NoUDP    bool // open no UDP socket: all others are reached by Carriers and Link
}

// A Peer is a member of an overlay network, from Start to Close. Its methods may be called by many
// goroutines.
type Peer struct {
	engine    *engine.Engine
	device    device
	mtu       int
	mtuReason string
	udp       *underlay.UDP // nil with Config.NoUDP
	transport *http.Transport
	cfg       Config
	started   time.Time

	linked    atomic.Bool // Link was called
	closed    chan struct{}
	closeOnce sync.Once
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
// themselves: a dial waits for the one it needs, and Ready tells of the first. After an error nothing is
// left running or open.
func Start(ctx context.Context, cfg Config) (*Peer, error) {
	p, err := start(ctx, cfg)
	if err != nil {
		closeCarriers(cfg.Carriers)
		return nil, fmt.Errorf("peer: %w", err)
	}
	return p, nil
}

func start(ctx context.Context, cfg Config) (*Peer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	mtu, because := cfg.OverlayMTU()
	d, err := openDevice(ctx, deviceConfig{
		Mode: cfg.Mode, Interface: cfg.Interface, MTU: mtu, Addresses: cfg.Addresses,
		Routes: cfg.routes(), Endpoints: cfg.endpoints(), Advertise: cfg.Advertise, Host: cfg.Host, Limits: cfg.limits(), Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	e, err := engine.New(engine.Config{
		PrivateKey: cfg.PrivateKey, PresharedKey: cfg.PresharedKey, Device: d.Device, MTU: mtu, Addresses: cfg.Addresses,
		RekeyAfter: cfg.RekeyAfter, Keepalive: cfg.Keepalive, Reaching: d.reach, Logger: cfg.Logger,
	})
	if err != nil {
		d.Close()
		return nil, err
	}
	p := &Peer{engine: e, device: d, mtu: mtu, mtuReason: because, cfg: cfg, started: time.Now(), closed: make(chan struct{})}
	p.transport = newTransport(p.DialContext)
	if err := p.populate(ctx); err != nil {
		e.Close()
		return nil, err
	}
	e.Start()
	return p, nil
}

// populate gives the engine its carriers and remotes. What reaches addresses comes before the remotes,
// whose first initiation wants it there; what leads to one far end comes after, for it is offered to the
// remotes that are known.
func (p *Peer) populate(ctx context.Context) error {
	if !p.cfg.NoUDP {
		udp, err := listenUDP(ctx, p.cfg.listen(), p.cfg.UDP, p.cfg.Logger)
		if err != nil {
			return err
		}
		p.udp = udp
		if err := p.engine.AddCarrier(udp); err != nil {
			return err
		}
	}
	if err := p.addCarriers(true); err != nil {
		return err
	}
	for i, r := range p.cfg.Relays {
		_, err := p.engine.AddRemote(engine.RemoteConfig{
			PublicKey: r.PublicKey, PresharedKey: r.PresharedKey, Endpoint: r.Endpoint, Relay: true,
		})
		if err != nil {
			return wrong(fmt.Sprintf("Relays[%d]", i), "%w", err)
		}
	}
	for i, r := range p.cfg.Peers {
		_, err := p.engine.AddRemote(engine.RemoteConfig{
			Name: r.Name, PublicKey: r.PublicKey, PresharedKey: r.PresharedKey, Endpoint: r.Endpoint, AllowedIPs: r.AllowedIPs,
		})
		if err != nil {
			return wrong(fmt.Sprintf("Peers[%d]", i), "%w", err)
		}
	}
	return p.addCarriers(false)
}

// addCarriers adds those of Config.Carriers that reach addresses, or those that do not.
func (p *Peer) addCarriers(addressed bool) error {
	for _, c := range p.cfg.Carriers {
		if c.LocalAddr().IsValid() != addressed {
			continue
		}
		if !addressed {
			p.linked.Store(true)
		}
		if err := p.engine.AddCarrier(c); err != nil {
			return err
		}
	}
	return nil
}

func closeCarriers(carriers []underlay.Carrier) {
	for _, c := range carriers {
		if c != nil {
			c.Close()
		}
	}
}

// listen is where the UDP socket is opened; nowhere if there is to be none.
func (c *Config) listen() string { return listenAt(c.Listen, c.NoUDP) }

func listenAt(listen string, noUDP bool) string {
	if noUDP {
		return ""
	}
	return cmp.Or(listen, config.DefaultListen)
}

func listenUDP(ctx context.Context, listen string, c config.UDP, log *slog.Logger) (*underlay.UDP, error) {
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

// limits are those of the program, and where it has none those of the file.
func (c *Config) limits() netstack.Limits {
	l, f := c.Limits, c.AdvertiseLimits
	l.Conns = cmp.Or(l.Conns, f.MaxConnections)
	l.ConnsPerSource = cmp.Or(l.ConnsPerSource, f.MaxConnectionsPerClient)
	l.Flows = cmp.Or(l.Flows, f.MaxFlows)
	l.FlowsPerSource = cmp.Or(l.FlowsPerSource, f.MaxFlowsPerClient)
	l.FlowIdle = cmp.Or(l.FlowIdle, f.FlowTimeout)
	return l
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
// A peer that only waits for others to come, with no endpoint to call and no Link, is ready at once. The error is
// net.ErrClosed or the context's, wrapped.
func (p *Peer) Ready(ctx context.Context) error {
	if p.isClosed() {
		return fmt.Errorf("peer: %w", net.ErrClosed)
	}
	if len(p.cfg.endpoints()) == 0 && !p.linked.Load() {
		return nil
	}
	select {
	case <-p.engine.Ready():
		return nil
	case <-p.closed:
		return fmt.Errorf("peer: %w", net.ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("peer: no session yet: %w", ctx.Err())
	}
}

// Link carries the overlay over conn, which the peer owns from then on and may be anything: a
// TLS connection, a pipe, the standard streams of a process. Remotes that are configured without an endpoint,
// and relays likewise, are looked for at its other end, where Link was called as well.
//
// When the connection is lost the peer closes conn, and forgets the path by it, no more: with another
// Link the sessions are found again, and the connections inside them live on. The error is
// net.ErrClosed, wrapped, after Close; conn is closed then too.
func (p *Peer) Link(conn net.Conn) error {
	p.linked.Store(true)
	return link(p.engine, conn, p.cfg.Logger)
}

// link is Link of a peer and of a relay.
func link(to interface{ AddCarrier(underlay.Carrier) error }, conn net.Conn, log *slog.Logger) error {
	if err := to.AddCarrier(underlay.NewStream(conn, underlay.Config{Logger: log})); err != nil {
		return fmt.Errorf("peer: link: %w", err)
	}
	return nil
}

// HTTPClient returns a client whose connections go through the overlay. All clients of a peer share their
// idle connections, which Close closes.
func (p *Peer) HTTPClient() *http.Client { return &http.Client{Transport: p.transport} }

// newTransport is http.DefaultTransport, but for the way it dials and that it knows no proxy.
func newTransport(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		DialContext:           dial,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          100,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
}

// Close leaves the overlay: connections and listeners are closed, and all goroutines have ended when it
// returns. It may be called more than once, also at the same time.
func (p *Peer) Close() error {
	p.closeOnce.Do(func() { close(p.closed) })
	p.transport.CloseIdleConnections()
	return errors.Join(p.device.hangUp(), p.engine.Close())
}

func (p *Peer) isClosed() bool {
	select {
	case <-p.closed:
		return true
	default:
		return false
	}
}

// PublicKey is the peer's own.
func (p *Peer) PublicKey() wire.PublicKey { return p.engine.PublicKey() }

// Addresses are the peer's own on the overlay.
func (p *Peer) Addresses() []netip.Prefix { return slices.Clone(p.cfg.Addresses) }
