//go:build unix

package underlay

import (
	"errors"
	"syscall"
)

const msgTrunc = syscall.MSG_TRUNC

// isPassing reports whether err, of a read, tells of a datagram sent earlier or of the moment, and
// says nothing against the socket. Systems differ in which ICMP messages they report so.
func isPassing(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED,
		syscall.EHOSTUNREACH, syscall.EHOSTDOWN,
		syscall.ENETUNREACH, syscall.ENETDOWN, syscall.ENETRESET,
		syscall.EMSGSIZE, syscall.EPROTO, syscall.ENOPROTOOPT, syscall.EOPNOTSUPP,
		syscall.EACCES, syscall.EPERM, syscall.ETIMEDOUT, syscall.EINTR:
		return true
	}
	return false
}

// isTruncation reports whether a read that failed with err cut a datagram; here a flag says so.
func isTruncation(error) bool { return false }
