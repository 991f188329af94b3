//go:build !linux

package underlay

import (
	"errors"
	"fmt"
	"net"
)

// A prober would send datagrams that must not be fragmented.
type prober struct{}

func (*prober) open(*net.UDPConn) error { return nil }

func (*prober) send(*Message) error {
	return fmt.Errorf("datagrams that must not be fragmented: %w", errors.ErrUnsupported)
}
