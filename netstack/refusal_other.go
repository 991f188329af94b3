//go:build !windows

package netstack

func isSystemRefusal(error) bool { return false }
