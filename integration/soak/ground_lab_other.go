//go:build !linux

package main

import "errors"

// onLab has no namespaces to be in.
func onLab(*options, func(*ground) error) error {
	return errors.New("network namespaces are to be had on Linux only; -loopback does without")
}
