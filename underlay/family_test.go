package underlay_test

import (
	"net"
	"testing"

	"github.com/adit-overlay/adit/internal/citest"
)

// needFamily skips a test on a machine without the loopback address.
func needFamily(t *testing.T, addr string) {
	t.Helper()
	c, err := net.ListenPacket("udp", net.JoinHostPort(addr, "0"))
	if err != nil {
		citest.Skipf(t, "this machine has no address %s", addr)
	}
	c.Close()
}
