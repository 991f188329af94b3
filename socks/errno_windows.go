package socks

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// errnoReplies says which reply tells of which system error. Package syscall
// names POSIX errors with numbers of its own here, for programs to use among
// themselves; those of the system are Winsock's. A dial function may return
// either.
var errnoReplies = []struct {
	errno syscall.Errno
	reply reply
}{
	{windows.WSAECONNREFUSED, connectionRefused},
	{windows.WSAEHOSTUNREACH, hostUnreachable},
	{windows.WSAEHOSTDOWN, hostUnreachable},
	{windows.WSAENETUNREACH, networkUnreachable},
	{windows.WSAENETDOWN, networkUnreachable},
	{windows.WSAETIMEDOUT, ttlExpired},
	{windows.WSAEACCES, notAllowed},
	{windows.WSAEAFNOSUPPORT, addressTypeNotSupported},
	{syscall.ECONNREFUSED, connectionRefused},
	{syscall.EHOSTUNREACH, hostUnreachable},
	{syscall.EHOSTDOWN, hostUnreachable},
	{syscall.ENETUNREACH, networkUnreachable},
	{syscall.ENETDOWN, networkUnreachable},
	{syscall.ETIMEDOUT, ttlExpired},
	{syscall.EAFNOSUPPORT, addressTypeNotSupported},
}
