package control

import (
	"errors"

	"golang.org/x/sys/windows"
)

// checkFolder trusts the access lists of the user's own folders.
func checkFolder(string) error { return nil }

func isRefused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }
