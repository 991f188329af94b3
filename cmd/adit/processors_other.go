//go:build !unix

package main

import (
	"errors"
	"time"
)

// cpuTime is not known here, and the runtime decides.
func cpuTime() (time.Duration, error) { return 0, errors.ErrUnsupported }
