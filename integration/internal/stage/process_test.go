//go:build linux

package stage

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// TestCPUTime reads this process's time between two readings of it by another way, which has microseconds.
func TestCPUTime(t *testing.T) {
	rusage := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	const rounding = 2 * time.Microsecond
	before := rusage()
	got, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after := rusage(); got < before-rounding || got > after+rounding {
		t.Errorf("%v, want between %v and %v", got, before, after)
	}
	if _, err := cpuTime(1 << 23); err == nil {
		t.Error("of a process that cannot be: no error")
	}
}
