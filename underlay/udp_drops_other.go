//go:build !linux

package underlay

import "net"

// socketDrops is not known: this system does not tell it of one socket.
func socketDrops(*net.UDPConn) uint64 { return 0 }
