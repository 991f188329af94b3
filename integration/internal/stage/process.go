//go:build linux

package stage

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/adit-overlay/adit/integration/lab"
)

// ticksPerSecond is USER_HZ, the unit of /proc/PID/stat, which Linux promises on all systems Go runs on.
const ticksPerSecond = 100

// CPUTime is the user and system time of processes so far.
func CPUTime(ps ...*lab.Process) (time.Duration, error) {
	var ticks uint64
	for _, p := range ps {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
		if err != nil {
			return 0, fmt.Errorf("a process has ended: %w; it wrote:\n%s", err, p.Output())
		}
		// The name, field 2, may hold spaces and parentheses. Of what follows, utime and stime are 11 and 12.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		for _, f := range fields[11:13] {
			n, err := strconv.ParseUint(string(f), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/%d/stat: %w", p.Pid(), err)
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
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
