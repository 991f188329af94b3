//go:build !linux

package tun

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/adit-overlay/adit/packet"
)

// A Device is a TUN device of the kernel. On this system there is none.
type Device struct{}

func unsupported() error {
	return fmt.Errorf("tun: %w: tun devices are supported on Linux only; use netstack mode", ErrUnavailable)
}

// Open returns an error that matches [ErrUnavailable].
func Open(Config) (*Device, error) { return nil, unsupported() }

// Available returns an error that matches [ErrUnavailable].
func Available() error { return unsupported() }

// Read returns net.ErrClosed, as of a closed device.
func (*Device) Read(*packet.Batch) error { return net.ErrClosed }

// Inlet returns a way in that is closed.
func (*Device) Inlet() packet.Inlet { return closedInlet{} }

// Name returns the empty string.
func (*Device) Name() string { return "" }

// MTU returns 0.
func (*Device) MTU() int { return 0 }

// Bypass returns net.ErrClosed, as of a closed device.
func (*Device) Bypass(netip.Addr) error { return net.ErrClosed }

// Malformed returns 0.
func (*Device) Malformed() uint64 { return 0 }

// Stats returns nothing.
func (*Device) Stats() Stats { return Stats{} }

// Close does nothing.
func (*Device) Close() error { return nil }

type closedInlet struct{}

func (closedInlet) Lend(n int) []byte { return make([]byte, n) }

func (closedInlet) Deliver(int, packet.Offload) error { return net.ErrClosed }
