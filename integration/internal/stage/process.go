//go:build linux

package stage

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/adit-overlay/adit/integration/lab"
)

// CPUTime is the user and system time of processes so far.
func CPUTime(ps ...*lab.Process) (sum time.Duration, err error) {
	for _, p := range ps {
		spent, err := cpuTime(p.Pid())
		if err != nil {
			return 0, fmt.Errorf("a process has ended: %w; it wrote:\n%s", err, p.Output())
		}
		sum += spent
	}
	return sum, nil
}

// cpuTime reads the clock that clock_getcpuclockid(3) names. The times in /proc/PID/stat are whole hundredths of a second:
// none, of a process that has done little.
func cpuTime(pid int) (time.Duration, error) {
	const scheduled = 2 // CPUCLOCK_SCHED
	var t unix.Timespec
	if err := unix.ClockGettime(^int32(pid)<<3|scheduled, &t); err != nil {
		return 0, fmt.Errorf("the processor time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// Fields of /proc/PID/status.
const (
	ResidentNow  = "VmRSS"
	ResidentPeak = "VmHWM"
)

// Memory returns a field of the process that has most of it, in bytes.
func Memory(field string, ps ...*lab.Process) (most float64, err error) {
	for _, p := range ps {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
		if err != nil {
			return 0, fmt.Errorf("a process has ended: %w; it wrote:\n%s", err, p.Output())
		}
		_, rest, found := bytes.Cut(status, []byte("\n"+field+":"))
		fields := bytes.Fields(rest)
		if !found || len(fields) == 0 {
			return 0, fmt.Errorf("/proc/%d/status has no %s", p.Pid(), field)
		}
		kb, err := strconv.ParseFloat(string(fields[0]), 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/status: %s: %w", p.Pid(), field, err)
		}
		most = max(most, kb*1024)
	}
	return most, nil
}
