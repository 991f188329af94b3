package underlay

import (
	"errors"

	"golang.org/x/sys/windows"
)

// msgTrunc is a flag no read returns here: a datagram that was cut is an error.
const msgTrunc = 0

// isPassing reports whether err, of a read, tells of a datagram sent earlier or of the moment, and
// says nothing against the socket.
func isPassing(err error) bool {
	var errno windows.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case windows.WSAECONNRESET, windows.WSAENETRESET, windows.WSAECONNREFUSED,
		windows.WSAEHOSTUNREACH, windows.WSAENETUNREACH, windows.WSAENETDOWN,
		windows.WSAECONNABORTED, windows.WSAETIMEDOUT, windows.WSAEINTR:
		return true
	}
	return false
}

// isTruncation reports whether a read that failed with err cut a datagram.
func isTruncation(err error) bool { return errors.Is(err, windows.WSAEMSGSIZE) }
