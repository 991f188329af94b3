package peer

import (
	"testing"
	"time"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/netstack"
)

// Each limit of a file becomes the one of the stack that its name says, and a program's own comes first.
func TestLimitsOfTheFileReachTheStack(t *testing.T) {
	c := Config{Peer: config.Peer{AdvertiseLimits: config.AdvertiseLimits{
		MaxConnections: 1, MaxConnectionsPerClient: 2, MaxFlows: 3, MaxFlowsPerClient: 4, FlowTimeout: 5 * time.Second,
	}}}
	want := netstack.Limits{Conns: 1, ConnsPerSource: 2, Flows: 3, FlowsPerSource: 4, FlowIdle: 5 * time.Second}
	if got := c.limits(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	c.Limits = netstack.Limits{Conns: 10, Dials: 6}
	want.Conns, want.Dials = 10, 6
	if got := c.limits(); got != want {
		t.Errorf("with a program's own: got %+v, want %+v", got, want)
	}
}
