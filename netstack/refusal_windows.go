package netstack

import (
	"errors"

	"golang.org/x/sys/windows"
)

// isSystemRefusal knows the numbers Windows gives to what package syscall calls ECONNREFUSED
// and the like.
func isSystemRefusal(err error) bool {
	for _, e := range []error{
		windows.WSAECONNREFUSED, windows.WSAECONNRESET, windows.WSAEHOSTUNREACH, windows.WSAENETUNREACH,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
