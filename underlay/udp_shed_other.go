//go:build !linux

package underlay

import (
	"errors"
	"net"
)

func shed(*net.UDPConn, []Shed) error { return errors.ErrUnsupported }
