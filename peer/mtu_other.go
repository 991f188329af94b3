//go:build !linux

package peer

import "github.com/adit-overlay/adit/config"

// autoMTU is, on systems where paths cannot be measured, what fits nearly all of them.
func autoMTU(string, []string) (mtu int, because string) {
	return config.DefaultMTU, "paths are not measured on this system"
}
