package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/netstack"
	"github.com/adit-overlay/adit/tun"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

// A network is where a program's connections come from: the stack's face to the program, or the host's own.
// Addresses are IP literals.
type network interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	Listen(network, address string) (net.Listener, error)
	ListenPacket(network, address string) (net.PacketConn, error)
}

// A device is one end of the overlay and the network that goes with it.
type device struct {
	engine.Device
	network
	mode  config.Mode
	why   string           // for people
	iface string           // TUN mode: the interface
	host  *hostNetwork     // TUN mode
	reach func(netip.Addr) // TUN mode: leads an underlay address around the device
	stack *netstack.Stack  // netstack mode
}

type deviceConfig struct {
	Mode      config.Mode
	Interface string
	MTU       int
	Addresses []netip.Prefix
	Routes    []netip.Prefix
	Endpoints []string
	Advertise []netip.Prefix
	Host      netstack.Host
	Limits    netstack.Limits
	Logger    *slog.Logger
}

// openDevice takes the mode asked for, or the best there is: TUN where the process may have it. That
// falls back only for want of privilege or of a TUN driver; any other failure is one.
func openDevice(ctx context.Context, c deviceConfig) (device, error) {
	switch c.Mode {
	case config.ModeTUN:
		d, err := openTUN(ctx, c, "the configuration asks for it")
		if errors.Is(err, tun.ErrUnavailable) {
			err = fmt.Errorf("%w; mode netstack needs no device", err)
		}
		return d, err
	case config.ModeNetstack:
		return openStack(c, "the configuration asks for it")
	case config.ModeAuto, "":
	default:
		return device{}, fmt.Errorf("unknown mode %q", c.Mode)
	}
	if len(c.Advertise) > 0 {
		return openStack(c, "networks are advertised, which needs the stack")
	}
	if err := tun.Available(); err != nil {
		return openStack(c, err.Error())
	}
	d, err := openTUN(ctx, c, "this process may have a TUN device")
	if errors.Is(err, tun.ErrUnavailable) {
		return openStack(c, err.Error())
	}
	return d, err
}

func openStack(c deviceConfig, why string) (device, error) {
	s, err := netstack.New(netstack.Config{
		Addresses: c.Addresses, MTU: c.MTU, GSOMaxSegments: segmentsPerMessage(c.MTU),
		Advertise: c.Advertise, Host: c.Host, Limits: c.Limits, Logger: c.Logger,
	})
	if err != nil {
		return device{}, err
	}
	return device{Device: s, network: s, mode: config.ModeNetstack, why: why, stack: s}, nil
}

// segmentsPerMessage is how many full segments, sealed, one message of a carrier holds. A super-packet of
// so many stays whole on its way.
func segmentsPerMessage(mtu int) int {
	sealed := mtu + wire.DataOverhead + wire.CircuitOverhead
	return min(underlay.MaxSegments, max(1, underlay.MaxMessage/sealed))
}

func openTUN(ctx context.Context, c deviceConfig, why string) (device, error) {
	d, err := tun.Open(tun.Config{
		Name: c.Interface, MTU: c.MTU, Addresses: c.Addresses, Routes: c.Routes,
		Bypass: bypass(ctx, c), Logger: c.Logger,
	})
	if err != nil {
		return device{}, err
	}
	if family := beside(c.Routes); family != "" {
		c.Logger.Warn(family+" goes beside the tunnel", "because", besideWhy)
	}
	reach := func(a netip.Addr) {
		if err := d.Bypass(a); err != nil && !errors.Is(err, net.ErrClosed) {
			c.Logger.Warn("an underlay address may be drawn into the tunnel", "address", a, "error", err)
		}
	}
	host := newHostNetwork(c.Addresses)
	return device{Device: d, network: host, mode: config.ModeTUN, why: why, iface: d.Name(), host: host, reach: reach}, nil
}

// hangUp closes the connections and listeners of programs. The stack does so itself, when the engine closes its
// device; the host's sockets are to be closed before that, while their resets still find a way.
func (d device) hangUp() error {
	if d.host == nil {
		return nil
	}
	return d.host.Close()
}

// bypass are the underlay addresses that a default route into the overlay must not cover. Names are
// looked up now, while the way to a name server is still open.
func bypass(ctx context.Context, c deviceConfig) []netip.Addr {
	full := slices.ContainsFunc(c.Routes, toInternet)
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var all []netip.Addr
	for _, endpoint := range c.Endpoints {
		host, _, err := net.SplitHostPort(endpoint)
		if err != nil {
			continue
		}
		if a, err := netip.ParseAddr(host); err == nil {
			all = append(all, a.Unmap())
			continue
		}
		if !full {
			continue
		}
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			c.Logger.Warn("endpoint does not resolve; it will not be reached beside the full tunnel", "endpoint", endpoint, "error", err)
		}
		for _, a := range found {
			all = append(all, a.Unmap())
		}
	}
	return all
}

const lookupTimeout = 10 * time.Second
