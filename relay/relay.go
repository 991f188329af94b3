// Package relay is the server that carries sealed datagrams between members that cannot reach each
// other, and tells members of each other. It holds none of their keys: what it forwards it can
// neither read nor forge.
//
// A relay is an engine whose sessions are with its members (who is there, where, authenticated), a
// forwarder that sits before that engine in each carrier (forward.go) and has the system drop what a member sends far beyond its limit
// (shed.go), the circuits it forwards by (circuit.go) and a directory (directory.go). The forwarder asks the engine's snapshots where a
// member is; nothing tells it, so there is nothing to get out of step.
//
// Section marks (§) refer to docs/protocol.md.
package relay

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// A Member is one who may use the relay.
type Member struct {
	Name       string
	PublicKey  wire.PublicKey
	AllowedIPs []netip.Prefix
}

// Limits bound what one member may take of the relay. Zero means the default.
type Limits struct {
	Circuits       int // open at a time; 1024
	BytesPerSecond int // sent by a member through the relay; unlimited
}

const defaultCircuits = 1024 // as a file has it that says nothing

// Config is what a Relay is made of.
type Config struct {
	// Engine holds key, clock and all else of the sessions with members. With a Device and
	// Addresses the relay is a peer as well, and answers at these addresses. Serve is the relay's own.
	Engine engine.Config

	// Name is what the relay is called as a peer.
	Name string

	Members []Member
	Limits  Limits
	Logger  *slog.Logger // nil: none
}

// A Relay forwards for its members from Start to Close.
type Relay struct {
	engine    *engine.Engine
	log       *slog.Logger
	directory directory
	circuits  circuits
	limits    Limits
	counters  counters
	epoch     time.Time // when it was made

	mu sync.Mutex // held while circuits are opened and closed

	start, stop sync.Once
	done        chan struct{} // closed by Close
	wg          sync.WaitGroup
}

// New returns a relay that has no carrier yet.
func New(cfg Config) (*Relay, error) {
	r := &Relay{log: cfg.Logger, limits: cfg.Limits, epoch: time.Now(), done: make(chan struct{})}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.limits.Circuits == 0 {
		r.limits.Circuits = defaultCircuits
	}
	r.circuits.init()
	cfg.Engine.Serve = r.serve
	e, err := engine.New(cfg.Engine)
	if err != nil {
		return nil, err
	}
	r.engine = e
	r.directory.init()
	for _, m := range cfg.Members {
		remote, err := e.AddRemote(engine.RemoteConfig{Name: m.Name, PublicKey: m.PublicKey, AllowedIPs: m.AllowedIPs})
		if err == nil {
			err = r.directory.add(newMember(m, remote, r.limits))
		}
		if err != nil {
			e.Close()
			return nil, fmt.Errorf("member %q: %w", m.Name, err)
		}
	}
	if len(cfg.Engine.Addresses) > 0 {
		self := Member{Name: cfg.Name, PublicKey: e.PublicKey()}
		for _, a := range cfg.Engine.Addresses {
			self.AllowedIPs = append(self.AllowedIPs, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
		}
		if err := r.directory.add(newMember(self, nil, r.limits)); err != nil {
			e.Close()
			return nil, fmt.Errorf("its own address: %w", err)
		}
	}
	return r, nil
}

// Start begins to serve members.
func (r *Relay) Start() {
	r.start.Do(func() {
		r.engine.Start()
		r.wg.Go(r.sweepCircuits)
	})
}

// AddCarrier gives the relay a carrier to forward on. Members may be on different ones.
func (r *Relay) AddCarrier(c underlay.Carrier) error {
	return r.engine.AddCarrier(newForwarder(r, c))
}

// Engine is the engine that holds the sessions with members.
func (r *Relay) Engine() *engine.Engine { return r.engine }

// Close ends the relay and waits for it.
func (r *Relay) Close() error {
	r.start.Do(func() {}) // it does not start any more
	r.stop.Do(func() { close(r.done) })
	r.wg.Wait()
	return r.engine.Close()
}
