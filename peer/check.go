package peer

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/wire"
)

// A file is checked by package config. A Config made by hand is checked here, for what the parts beneath
// would not notice or not name. Errors name the field.

// Bounds of what is not zero, as in a file.
const (
	minMTU, maxMTU               = 576, 65000
	minRekeyAfter, maxRekeyAfter = 10 * time.Second, 8 * time.Minute
	minKeepalive, maxKeepalive   = time.Second, 10 * time.Minute
)

// wrong is an error about a field.
func wrong(field, format string, args ...any) error {
	return fmt.Errorf("%s: "+format, append([]any{field}, args...)...)
}

func (c *Config) check() error {
	if len(c.Addresses) == 0 {
		return wrong("Addresses", "at least one is needed")
	}
	if len(c.Advertise) > 0 && c.Mode == config.ModeTUN {
		return wrong("Advertise", "of no use in tun mode, where the kernel forwards")
	}
	for i, carrier := range c.Carriers {
		if carrier == nil {
			return wrong(fmt.Sprintf("Carriers[%d]", i), "is nil")
		}
	}
	owners, err := checkSelf(c.Name, c.PrivateKey, c.Addresses, c.MTU, c.RekeyAfter, c.Keepalive)
	if err != nil {
		return err
	}
	for i, r := range c.Peers {
		if err := owners.add(fmt.Sprintf("Peers[%d]", i), r.Name, r.AllowedIPs); err != nil {
			return err
		}
	}
	return nil
}

func (c *RelayConfig) check() error {
	if len(c.Members) == 0 {
		return wrong("Members", "at least one is needed, for only members may use a relay")
	}
	if c.Limits.CircuitsPerMember < 0 || c.Limits.BytesPerSecondPerMember < 0 {
		return wrong("Limits", "less than nothing")
	}
	for i, carrier := range c.Carriers {
		if carrier == nil {
			return wrong(fmt.Sprintf("Carriers[%d]", i), "is nil")
		}
	}
	owners, err := checkSelf(c.Name, c.PrivateKey, c.Addresses, c.MTU, c.RekeyAfter, c.Keepalive)
	if err != nil {
		return err
	}
	for i, m := range c.Members {
		if err := owners.add(fmt.Sprintf("Members[%d]", i), m.Name, m.AllowedIPs); err != nil {
			return err
		}
	}
	return nil
}

// checkSelf checks what a peer and a relay say alike of themselves, and returns the owners so far.
func checkSelf(name string, key wire.PrivateKey, addresses []netip.Prefix, mtu int, rekey, keepalive time.Duration) (owners, error) {
	o := owners{names: make(map[string]string), prefixes: make(map[netip.Prefix]string)}
	if name != "" {
		if err := wire.CheckName(name); err != nil {
			return o, wrong("Name", "%w", err)
		}
		o.names[name] = "Name"
	}
	if key.IsZero() {
		return o, wrong("PrivateKey", "is not set: wire.GeneratePrivateKey makes one")
	}
	for i, a := range addresses {
		if !a.IsValid() || a.Addr().Is4In6() {
			return o, wrong(fmt.Sprintf("Addresses[%d]", i), "%v is no address with a prefix length, like 10.9.0.2/24", a)
		}
		own := netip.PrefixFrom(a.Addr(), a.Addr().BitLen())
		if o.prefixes[own] != "" {
			return o, wrong(fmt.Sprintf("Addresses[%d]", i), "%v is there already", a.Addr())
		}
		o.prefixes[own] = "Addresses"
	}
	switch {
	case mtu != 0 && (mtu < minMTU || mtu > maxMTU):
		return o, wrong("MTU", "%d is not within %d and %d", mtu, minMTU, maxMTU)
	case rekey != 0 && (rekey < minRekeyAfter || rekey > maxRekeyAfter):
		return o, wrong("RekeyAfter", "%v is not within %v and %v", rekey, minRekeyAfter, maxRekeyAfter)
	case keepalive != 0 && (keepalive < minKeepalive || keepalive > maxKeepalive):
		return o, wrong("Keepalive", "%v is not within %v and %v", keepalive, minKeepalive, maxKeepalive)
	}
	return o, nil
}

// owners remembers whose a name or an overlay address is. Neither can have two.
type owners struct {
	names    map[string]string
	prefixes map[netip.Prefix]string
}

func (o owners) add(field, name string, allowed []netip.Prefix) error {
	if name != "" {
		if err := wire.CheckName(name); err != nil {
			return fmt.Errorf("%s.Name: %w", field, err)
		}
		if other := o.names[name]; other != "" {
			return fmt.Errorf("%s.Name: %q is taken by %s", field, name, other)
		}
		o.names[name] = field
	}
	if len(allowed) == 0 {
		return fmt.Errorf("%s.AllowedIPs: at least one is needed", field)
	}
	for _, p := range allowed {
		if err := wire.CheckPrefix(p); err != nil {
			return fmt.Errorf("%s.AllowedIPs: %w", field, err)
		}
		if other := o.prefixes[p]; other != "" {
			return fmt.Errorf("%s.AllowedIPs: %v is taken by %s", field, p, other)
		}
		o.prefixes[p] = field
	}
	return nil
}
