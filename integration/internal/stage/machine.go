//go:build linux

package stage

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Machine is what the figures depend on.
type Machine struct {
	Time      time.Time
	Processor string
	Cores     int
	MemoryMB  uint64
	Kernel    string
	Go        string
	Adit      string
	Load      float64 // average of the minute before
}

// This is the machine the program runs on.
func This(ctx context.Context) (Machine, error) {
	m := Machine{Time: time.Now().UTC().Truncate(time.Second), Cores: runtime.NumCPU(), Go: runtime.Version()}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return m, fmt.Errorf("asking for the kernel's version: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:]) + " " + unix.ByteSliceToString(name.Machine[:])
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return m, fmt.Errorf("asking for the memory: %w", err)
	}
	m.MemoryMB = uint64(info.Totalram) * uint64(info.Unit) >> 20
	m.Load = float64(info.Loads[0]) / (1 << 16)
	m.Processor = processor()
	m.Adit = revision(ctx)
	return m, nil
}

// processor is what the machine says of its processor, empty if nothing.
func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	_, rest, _ := bytes.Cut(info, []byte("model name"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return strings.TrimSpace(strings.TrimLeft(string(line), " \t:"))
}

// revision is the commit that is checked out, if that can be known.
func revision(ctx context.Context) string {
	out, err := Command(ctx, "", "git", "describe", "--always", "--dirty")
	if err != nil {
		return "unknown"
	}
	return out
}

// busy is the load average above which figures are not to be trusted.
const busy = 0.5

// Warning says why figures are not to be trusted, empty if there is no reason.
func (m Machine) Warning() string {
	if m.Load <= busy {
		return ""
	}
	return fmt.Sprintf("warning: the load average is %.2f: something else runs, and the figures will show it", m.Load)
}
