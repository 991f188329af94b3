//go:build linux || darwin || freebsd

package control

import "net"

// userOf returns who connected.
func userOf(c *net.UnixConn) (uid int, told bool, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false, err
	}
	if cerr := raw.Control(func(fd uintptr) { uid, err = uidOf(int(fd)) }); cerr != nil {
		err = cerr
	}
	return uid, err == nil, err
}
