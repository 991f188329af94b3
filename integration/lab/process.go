//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// User is whom a process runs as.
type User struct{ UID, GID uint32 }

// Nobody is the user without rights of his own.
var Nobody = User{65534, 65534}

// Process is a command in a host. Set the exported fields before Start.
//
// A process never outlives its test: it is killed when the test ends or is itself killed. What
// it leaves running in its process group is killed when it ends.
type Process struct {
	Env   []string  // added to the test's own environment
	Dir   string    // working directory; empty: the test's
	Stdin io.Reader // nil: /dev/null

	// User, if not nil, is whom to run as: without capabilities, supplementary groups, or a way to gain
	// privileges by executing a set-user-id file. The program and Dir must be within that user's
	// reach, which files under t.TempDir are not; see [Network.TempDir].
	User *User

	// HideTUN gives the process a mount namespace in which there is no /dev/net/tun.
	HideTUN bool

	h      *Host
	cmd    *exec.Cmd
	output output
	done   chan struct{} // nil before Start; closed when the process has been waited for
	err    error         // of the process; valid after done
}

// Command returns a process that is not yet started. The program is looked up as by [exec.Command].
func (h *Host) Command(name string, args ...string) *Process {
	return &Process{h: h, cmd: exec.Command(name, args...)}
}

// Run runs a command in the host and returns what it wrote to stdout and stderr together. It
// ends the test if the command fails.
func (h *Host) Run(name string, args ...string) string {
	h.n.t.Helper()
	p := h.Command(name, args...)
	p.Start()
	h.n.wrap(p.Wait(), "host %s: %s", h.name, p.cmd)
	return p.Output()
}

// Start starts the process, and ends the test if it cannot.
func (p *Process) Start() {
	n := p.h.n
	n.t.Helper()
	if p.done != nil {
		n.t.Fatalf("lab: host %s: %s is started already", p.h.name, p.cmd)
	}
	p.cmd.Env = append(os.Environ(), p.Env...)
	p.cmd.Env = append(p.cmd.Env, labelVariable+"="+n.label)
	p.cmd.Dir, p.cmd.Stdin = p.Dir, p.Stdin
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	// A daemon that left the process group may hold the output open; it is not waited for.
	p.cmd.WaitDelay = time.Second
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid: true,
		// The signal comes when the thread that started the process ends: that thread
		// stays until the process has ended, so it comes only if the whole test is killed.
		Pdeathsig: syscall.SIGKILL,
	}
	if p.User != nil {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: p.User.UID, Gid: p.User.GID}
	}
	p.done = make(chan struct{})
	started := make(chan error, 1)
	onSpareThread(func() { p.attend(started) })
	if err := <-started; err != nil {
		<-p.done
		n.t.Fatalf("lab: host %s: starting %s: %v", p.h.name, p.cmd, err)
	}
	n.onClose(p.finish)
}

// attend is the life of the thread that starts the process and waits for it.
func (p *Process) attend(started chan<- error) {
	defer close(p.done)
	err := p.h.ns.do(func() {
		err := p.confine()
		if err == nil {
			err = p.cmd.Start()
		}
		started <- err
		if err != nil {
			p.err = err
			return
		}
		p.await()
	})
	if err != nil {
		p.err = err
		started <- err
	}
}

// confine prepares the thread for what the child shall inherit of it. It cannot be undone.
func (p *Process) confine() error {
	if p.User != nil {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("giving up new privileges: %w", err)
		}
	}
	if !p.HideTUN {
		return nil
	}
	const dir = "/dev/net"
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil // nothing to hide
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_RDONLY, "size=4k"); err != nil {
		return fmt.Errorf("covering %s: %w", dir, err)
	}
	return nil
}

// await waits for the process, ends its group, and reaps it, in this order: while it is not reaped, no
// other group can have its number.
func (p *Process) await() {
	pid := p.cmd.Process.Pid
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	unix.Kill(-pid, unix.SIGKILL)
	p.err = p.cmd.Wait()
}

// finish ends the process with the test.
func (p *Process) finish() {
	p.cmd.Process.Kill() // an error means that it has ended
	<-p.done
	if t := p.h.n.t; t.Failed() {
		t.Logf("lab: host %s: %s: %v\n%s", p.h.name, p.cmd, p.cmd.ProcessState, p.output.tail(64<<10))
	}
}

// Wait waits for the end of a started process. Its error is that of [exec.Cmd.Wait]: an *[exec.ExitError]
// if the process did not exit with status 0. It may be called more than once.
func (p *Process) Wait() error {
	if p.done == nil {
		return fmt.Errorf("%s is not started", p.cmd)
	}
	<-p.done
	return p.err
}

// Done is closed when the process has ended. It is nil before Start.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal to the process, not to its children. The error is [os.ErrProcessDone] if it has ended.
func (p *Process) Signal(sig os.Signal) error {
	if p.done == nil {
		return fmt.Errorf("%s is not started", p.cmd)
	}
	return p.cmd.Process.Signal(sig)
}

// Pid returns the process's number, 0 before Start.
func (p *Process) Pid() int {
	if p.done == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Output returns what the process has written to stdout and stderr so far. Of more than 4 MiB, the
// beginning is lost.
func (p *Process) Output() string { return p.output.tail(outputLimit) }

// WaitFor returns nil when the output contains text, and an error that holds the output when
// the process or ctx ends first.
func (p *Process) WaitFor(ctx context.Context, text string) error {
	if p.done == nil {
		return fmt.Errorf("%s is not started", p.cmd)
	}
	for {
		written := p.output.next()
		if strings.Contains(p.Output(), text) {
			return nil
		}
		select {
		case <-written:
		case <-p.done:
			if strings.Contains(p.Output(), text) {
				return nil
			}
			return fmt.Errorf("%s ended (%v) without writing %q; it wrote:\n%s", p.cmd, p.cmd.ProcessState, text, p.Output())
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s to write %q: %w; it wrote:\n%s", p.cmd, text, ctx.Err(), p.Output())
		}
	}
}

const outputLimit = 4 << 20

// output keeps the last outputLimit bytes written to it.
type output struct {
	mu      sync.Mutex // guards what follows
	buf     bytes.Buffer
	written chan struct{} // closed at the next write; nil: nobody waits
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(b)
	if over := o.buf.Len() - outputLimit; over > 0 {
		o.buf.Next(over)
	}
	if o.written != nil {
		close(o.written)
		o.written = nil
	}
	return len(b), nil
}

// next returns a channel that is closed when there is more.
func (o *output) next() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.written == nil {
		o.written = make(chan struct{})
	}
	return o.written
}

func (o *output) tail(limit int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.buf.Bytes()
	return string(b[max(0, len(b)-limit):])
}
