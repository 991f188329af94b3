//go:build linux

package lab

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace without a name, and a netlink connection into it.
type namespace struct {
	handle netns.NsHandle
	*netlink.Handle
}

func newNamespace() (*namespace, error) {
	s := &namespace{handle: netns.None()}
	var inside error
	err := elsewhere(func() error {
		var err error
		s.handle, err = netns.New()
		return err
	}, func() {
		s.Handle, inside = netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	})
	if err == nil {
		err = inside
	}
	if err != nil {
		if s.handle.IsOpen() {
			s.handle.Close()
		}
		return nil, fmt.Errorf("making a network namespace: %w", err)
	}
	return s, nil
}

func (s *namespace) close() {
	s.Handle.Close()
	s.handle.Close()
}

// do calls f on the calling goroutine, its thread being in s meanwhile. f may end the
// goroutine (t.Fatal) or panic, and calls may be nested.
func (s *namespace) do(f func()) error {
	return elsewhere(func() error { return netns.Set(s.handle) }, f)
}

// elsewhere calls enter, which changes the network namespace of the calling thread, then f, and
// returns the thread to where it was. The runtime starts no new thread from a locked one, so
// no other thread can inherit the namespace.
func elsewhere(enter func() error, f func()) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("reading the namespace of this thread (is /proc mounted?): %w", err)
	}
	defer func() {
		if err := netns.Set(home); err != nil {
			// The thread stays locked: better no goroutine runs on it than one in the wrong network.
			panic(fmt.Sprintf("lab: cannot return to the namespace of the test: %v", err))
		}
		home.Close()
		runtime.UnlockOSThread()
	}()
	if err := enter(); err != nil {
		return fmt.Errorf("entering a network namespace: %w", err)
	}
	f()
	return nil
}

// sysctl sets /proc/sys/<key> as seen from s. What is under /proc/sys/net follows the network
// namespace of the thread that opens it.
func (s *namespace) sysctl(key, value string) error {
	var err error
	if e := s.do(func() { err = os.WriteFile("/proc/sys/"+key, []byte(value), 0) }); e != nil {
		return e
	}
	if err != nil {
		return fmt.Errorf("setting sysctl %s to %s: %w", key, value, err)
	}
	return nil
}

// onSpareThread runs f in a goroutine whose thread ends with it, so f may change the thread in
// ways that cannot be undone. It returns at once; f tells when it is done.
func onSpareThread(f func()) {
	go spareThread(f)
}

func spareThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != os.Getpid() {
		f() // returning locked ends the thread
		return
	}
	// The main thread cannot end: it would sit in the namespace for ever. Held here, it cannot
	// be what a second goroutine gets.
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
	runtime.UnlockOSThread()
}
