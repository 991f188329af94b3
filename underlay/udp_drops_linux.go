package underlay

import (
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socketDrops asks the kernel how many datagrams it has dropped for want of room in the socket's receive buffer
// (SO_MEMINFO, SK_MEMINFO_DROPS); 0 if it does not say.
func socketDrops(conn *net.UDPConn) uint64 {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	var info [unix.SK_MEMINFO_VARS]uint32
	size := uint32(unsafe.Sizeof(info))
	var drops uint32
	raw.Control(func(fd uintptr) {
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if errno == 0 && size > unix.SK_MEMINFO_DROPS*4 {
			drops = info[unix.SK_MEMINFO_DROPS]
		}
	})
	return uint64(drops)
}
