package peer

import (
	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/wire"
)

// OverlayMTU returns the MTU that the overlay gets by this configuration, here and now, and why it is that, for people. Nothing is
// sent to find out.
func (c *Config) OverlayMTU() (mtu int, because string) {
	return chooseMTU(c.MTU, c.listen(), c.endpoints())
}

// OverlayMTU is that of a relay that is a peer too.
func (c *RelayConfig) OverlayMTU() (mtu int, because string) {
	return chooseMTU(c.MTU, c.listen(), nil)
}

func chooseMTU(configured int, listen string, endpoints []string) (mtu int, because string) {
	switch {
	case configured != 0:
		return configured, "the configuration says so"
	case listen == "":
		return config.DefaultMTU, "there is no UDP socket"
	}
	return autoMTU(listen, endpoints)
}

// underlayOverhead is what may go around a packet of the overlay: our header and tag, a relay's prefix, and the headers of
// UDP and IPv6.
const underlayOverhead = wire.DataOverhead + wire.CircuitOverhead + 8 + 40

const (
	leastAutoMTU = 1280 // what IPv6 needs

	// mostAutoMTU is as fast as any where there is no limit, on loopback: a message of the carrier holds seven such packets. Fewer
	// and longer ones were no faster, and cost more memory.
	mostAutoMTU = 8900
)

// mtuWithin is the MTU of an overlay on links that carry IP packets of n bytes. Above the default it is a round number, so that
// 1500 gives just that.
func mtuWithin(n int) int {
	mtu := n - underlayOverhead
	if mtu > config.DefaultMTU {
		mtu -= mtu % 100
	}
	return min(max(mtu, leastAutoMTU), mostAutoMTU)
}
