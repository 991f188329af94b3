// Package engine is the overlay itself: it takes packets from a device, finds the remote they are
// for, seals them in a session with it and sends them down a path; and back.
//
// Two kinds of code live here, and they meet only in snapshots. The way of packets (outbound.go,
// inbound.go) runs straight through, batch by batch, and takes no lock that control holds for
// long. Control belongs to one remote at a time, under its lock: handshake.go, rekey.go, liveness.go,
// path.go and circuit.go each hold one concern and its state, take the time as an argument and
// tell their next deadline; one timer a remote serves the earliest (remote.go).
//
// Section marks (§) refer to docs/protocol.md.
package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/adit-overlay/adit/packet"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// A Device gives and takes plain IP packets.
type Device interface {
	// Read makes the device an outlet of its own. One that has an Outlet method returns others by it, to be
	// read by several goroutines in turn.
	packet.Outlet

	// Inlet returns a way into the device for one goroutine.
	Inlet() packet.Inlet

	// Close ends Read.
	Close() error
}

// Config is what an Engine is made of. The zero value of all but PrivateKey is useful.
type Config struct {
	PrivateKey wire.PrivateKey

	// Device is nil for a relay that is not a peer.
	Device Device

	// MTU is the longest packet the device gives out. Paths are measured up to what it needs; not at all if it is 0.
	MTU int

	// Addresses are our own on the overlay. Nobody else may be given them.
	Addresses []netip.Prefix

	// PresharedKey is mixed into the handshake with every remote that has none of its own, but
	// relays: what peers share, those who carry for them need not know.
	PresharedKey wire.PresharedKey

	// Workers is how many goroutines seal what one device gives, and how many open what one carrier
	// brings. 0 means as many as pay with the processors there are.
	Workers int

	RekeyAfter time.Duration // 0 means wire.RekeyAfter; the other ages of a session scale with it
	Keepalive  time.Duration // 0 means 25 s; how often a quiet remote hears of us

	// Serve answers the control messages by which members use a relay. It is nil for
	// all but relays. It is called by one goroutine at a time and must not block.
	Serve func(from *Remote, question wire.Control) (reply wire.Control)

	// LookupHost finds the addresses of a host on the underlay; nil means net.DefaultResolver.
	LookupHost func(ctx context.Context, host string) ([]netip.Addr, error)

	// WallClock is what orders our initiations, also over a restart (§15). It may be set back; all else goes by the
	// monotonic clock, which cannot. nil means time.Now.
	WallClock func() time.Time

	// Reaching is told each underlay address at which a remote is looked for or has shown itself, before anything is
	// sent there; literal endpoints are known without. It is called with locks held and calls nobody of the engine; nil is
	// told nothing.
	Reaching func(netip.Addr)

	Random io.Reader    // nil means crypto/rand
	Logger *slog.Logger // nil means none
}

const defaultKeepalive = 25 * time.Second

// defaultWorkers is one up to three processors: there the goroutines that send, receive and serve the application
// keep them all busy. From four on half of them share in each direction, up to maxWorkers; what is done in order,
// the system calls, lets no more get to work.
func defaultWorkers() int {
	return min(max(1, runtime.GOMAXPROCS(0)/2), maxWorkers)
}

const maxWorkers = 4

// An Engine is one end of the overlay. Its methods may be called by many goroutines.
type Engine struct {
	cfg     Config
	local   *wire.Local
	log     *slog.Logger
	drops   dropCounters
	traffic trafficCounters

	routes   routes
	indexes  indexes
	circuits circuitTable
	lookups  lookups
	requests requests
	inbox    inbox
	refusals refusals

	mu       sync.Mutex
	closed   bool
	remotes  map[wire.PublicKey]*Remote
	relays   []*Remote
	carriers []underlay.Carrier

	workers int
	jitter  jitter

	ready     chan struct{} // closed with the first session
	readyOnce sync.Once

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // all goroutines but
	device sync.WaitGroup // the device's reader, which ends first
}

// New returns an engine that does nothing yet: see Start and AddCarrier.
func New(cfg Config) (*Engine, error) {
	local, err := wire.NewLocal(cfg.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("engine: private key: %w", err)
	}
	if cfg.RekeyAfter == 0 {
		cfg.RekeyAfter = wire.RekeyAfter
	}
	if cfg.Keepalive == 0 {
		cfg.Keepalive = defaultKeepalive
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.WallClock == nil {
		cfg.WallClock = time.Now
	}
	if cfg.LookupHost == nil {
		cfg.LookupHost = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if cfg.Workers == 0 {
		cfg.Workers = defaultWorkers()
	}
	e := &Engine{
		cfg: cfg, local: local, log: cfg.Logger, workers: cfg.Workers,
		remotes: make(map[wire.PublicKey]*Remote), ready: make(chan struct{}),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.routes.init()
	e.indexes.init()
	e.circuits.init()
	e.lookups.init(e)
	e.requests.init(e)
	e.inbox.init(local)
	e.jitter.init(cfg.Random)
	e.refusals.init()
	return e, nil
}

// Start begins to read the device and to serve handshakes. Carriers and remotes may be added
// before and after.
func (e *Engine) Start() {
	e.goroutine(e.serveInbox)
	if e.cfg.Device != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		if !e.closed {
			e.device.Go(e.readDevice)
		}
	}
}

// AddCarrier gives the engine a carrier to receive from and send by. The engine closes it in the end,
// or when it fails.
func (e *Engine) AddCarrier(c underlay.Carrier) error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		c.Close()
		return net.ErrClosed
	}
	e.carriers = append(e.carriers, c)
	e.wg.Go(func() { e.readCarrier(c) })
	remotes := e.listRemotes()
	e.mu.Unlock()
	for _, r := range remotes {
		r.carrierAdded(c)
	}
	return nil
}

// goroutine runs f, and Close waits for it. It does nothing after Close.
func (e *Engine) goroutine(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.wg.Go(f)
	return true
}

// carrierGone forgets a carrier that has ended.
func (e *Engine) carrierGone(c underlay.Carrier, err error) {
	c.Close()
	e.mu.Lock()
	for i, have := range e.carriers {
		if have == c {
			e.carriers = append(e.carriers[:i:i], e.carriers[i+1:]...)
			break
		}
	}
	closed := e.closed
	remotes := e.listRemotes()
	e.mu.Unlock()
	if closed {
		return
	}
	if !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
		e.log.Warn("carrier ended", "error", err)
	}
	for _, r := range remotes {
		r.carrierGone(c)
	}
}

// Carriers returns the carriers there are.
func (e *Engine) Carriers() []underlay.Carrier {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.carriers)
}

// listRemotes is called with e.mu held.
func (e *Engine) listRemotes() []*Remote {
	all := make([]*Remote, 0, len(e.remotes))
	for _, r := range e.remotes {
		all = append(all, r)
	}
	return all
}

// datagramCarrier is the carrier by which addresses on the underlay are reached; nil if there is none.
func (e *Engine) datagramCarrier() underlay.Carrier {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.carriers {
		if c.LocalAddr().IsValid() {
			return c
		}
	}
	return nil
}

// Ready is closed when there is a session, the first, with anybody, and what confirms it is on its way.
func (e *Engine) Ready() <-chan struct{} { return e.ready }

// PublicKey is our own.
func (e *Engine) PublicKey() wire.PublicKey { return e.local.Public() }

// Close ends everything and waits for it: sessions are forgotten, carriers and the device closed.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		e.wg.Wait()
		return nil
	}
	e.closed = true
	remotes := e.listRemotes()
	carriers := e.carriers
	e.mu.Unlock()

	// The device goes first, and its last packets are sent: a stack that closes resets its connections.
	var errs []error
	if e.cfg.Device != nil {
		errs = append(errs, e.cfg.Device.Close())
		e.device.Wait()
	}
	e.cancel()
	for _, r := range remotes {
		r.close()
	}
	e.lookups.close()
	e.requests.close()
	for _, c := range carriers {
		errs = append(errs, c.Close())
	}
	e.wg.Wait()
	return errors.Join(errs...)
}
