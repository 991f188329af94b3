//go:build linux

package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A killed test leaves no namespace, but may leave processes that had made themselves
// independent of it, and temporary directories. Both carry the label of the lab that made them:
//
//	<pid namespace>-<pid>-<start time of that pid>-<number>
//
// The first three are the owner. The start time tells a reused pid from the owner itself.
const (
	labelVariable = "ADIT_LAB"
	dirPrefix     = "adit-lab-"
)

type owner struct {
	pidns uint64
	pid   int
	start uint64 // field 22 of /proc/pid/stat, in clock ticks since boot
}

func (o owner) String() string {
	return fmt.Sprintf("%d-%d-%d", o.pidns, o.pid, o.start)
}

// ownOwner is this process. A field that cannot be read is zero, which no other process takes for its own.
func ownOwner() owner {
	pid := os.Getpid()
	start, _ := startTime(pid)
	return owner{pidns: pidNamespace(), pid: pid, start: start}
}

// parseOwner reads the owner off the front of a label.
func parseOwner(label string) (owner, bool) {
	parts := strings.SplitN(label, "-", 4)
	if len(parts) != 4 {
		return owner{}, false
	}
	pidns, err1 := strconv.ParseUint(parts[0], 10, 64)
	pid, err2 := strconv.Atoi(parts[1])
	start, err3 := strconv.ParseUint(parts[2], 10, 64)
	return owner{pidns, pid, start}, err1 == nil && err2 == nil && err3 == nil
}

// abandoned reports whether the lab with this label certainly has no owner any more. Labs of other
// containers are not for us to judge.
func abandoned(label string) bool {
	o, ok := parseOwner(label)
	if !ok || o.pidns == 0 || o.pidns != pidNamespace() {
		return false
	}
	start, err := startTime(o.pid)
	if err != nil {
		return os.IsNotExist(err)
	}
	return start != o.start
}

func pidNamespace() uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/pid", &st) != nil {
		return 0
	}
	return st.Ino
}

func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, field 2, is in parentheses and may itself hold spaces and parentheses.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields after the name, want 20 or more", pid, len(fields))
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// sweepAbandoned removes what killed runs left.
func sweepAbandoned() {
	killMarked(abandoned)
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	for _, dir := range dirs {
		if abandoned(strings.TrimPrefix(filepath.Base(dir), dirPrefix)) {
			os.RemoveAll(dir)
		}
	}
}

// killMarked kills the processes in whose environment is a label that match accepts, and waits
// for their end.
func killMarked(match func(label string) bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	var dying []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if fd, ok := openMarked(pid, match); ok {
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			dying = append(dying, fd)
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	for _, fd := range dying {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			left := max(0, int(time.Until(deadline).Milliseconds()))
			if _, err := unix.Poll(poll, left); err != unix.EINTR {
				break
			}
		}
		unix.Close(fd)
	}
}

// openMarked returns a pidfd of the process if its label matches. The descriptor is opened
// before the look at the environment, so it cannot be of a later process with the same number.
func openMarked(pid int, match func(label string) bool) (fd int, ok bool) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, false
	}
	environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		if label, found := bytes.CutPrefix(entry, []byte(labelVariable+"=")); found && match(string(label)) {
			return fd, true
		}
	}
	unix.Close(fd)
	return -1, false
}
