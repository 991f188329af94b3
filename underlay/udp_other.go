//go:build !linux

package underlay

import "net"

func openUDPBody(conn *net.UDPConn, cfg Config, count *counters) (udpBody, error) {
	return openPortable(conn, cfg, count), nil
}
