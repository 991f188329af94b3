//go:build linux

package main

import "slices"

// programme is every row, file by file.
func programme() []row {
	return slices.Concat(
		floodRows,
		handshakeRows,
		replayRows,
		strangerRows,
		socksRows,
		memberRows,
	)
}
