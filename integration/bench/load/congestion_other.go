//go:build !linux

package load

import "errors"

func setCongestion(uintptr, string) error { return errors.ErrUnsupported }
