//go:build unix

package socks

import "syscall"

// errnoReplies says which reply tells of which system error.
// EACCES and EPERM are os.ErrPermission already.
var errnoReplies = []struct {
	errno syscall.Errno
	reply reply
}{
	{syscall.ECONNREFUSED, connectionRefused},
	{syscall.EHOSTUNREACH, hostUnreachable},
	{syscall.EHOSTDOWN, hostUnreachable},
	{syscall.ENETUNREACH, networkUnreachable},
	{syscall.ENETDOWN, networkUnreachable},
	{syscall.ETIMEDOUT, ttlExpired},
	{syscall.EAFNOSUPPORT, addressTypeNotSupported},
}
