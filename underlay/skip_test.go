package underlay_test

import (
	"net"
	"os"
	"testing"
)

// needFamily skips a test on a machine without the loopback address.
func needFamily(t *testing.T, addr string) {
	t.Helper()
	c, err := net.ListenPacket("udp", net.JoinHostPort(addr, "0"))
	if err != nil {
		skip(t, "this machine has no address "+addr)
	}
	c.Close()
}

// skip says why the test cannot run here. In CI, where it must be able to, it fails.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal("must run in CI, but " + why)
	}
	t.Skip(why)
}
