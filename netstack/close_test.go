package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/adit-overlay/adit/packet"
)

func TestCloseEndsEverything(t *testing.T) {
	hostL := hostListen(t)
	p := newForwardingPair(t, loopbackHost(t, hostL.Addr().String()), nil)
	l := listen(t, p.b, "tcp", ":80")
	near, far := join(t, p, addrB)
	forwarded := dial(t, p.a, "tcp", hostAddr+":80")
	behind, err := hostL.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer behind.Close()

	var ends sync.WaitGroup
	want := func(what string, ok func(error) bool, call func() error) {
		ends.Go(func() {
			if err := call(); !ok(err) {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	closed := func(err error) bool { return errors.Is(err, net.ErrClosed) }
	failed := func(err error) bool { return err != nil && err != io.EOF && !errors.Is(err, net.ErrClosed) }
	read := func(c net.Conn) func() error {
		return func() error { _, err := c.Read(make([]byte, 1)); return err }
	}
	want("accept at the closed stack", closed, func() error { _, err := l.Accept(); return err })
	want("read at the closed stack", closed, read(far))
	want("read at its peer", failed, read(near))
	want("read of a forwarded connection at its peer", failed, read(forwarded))
	want("read on the host", func(err error) bool { return err != nil }, read(behind))
	p.b.Close()
	ends.Wait()

	for what, call := range map[string]func() error{
		"Dial":         func() error { _, err := p.b.Dial("tcp", addrA+":1"); return err },
		"Listen":       func() error { _, err := p.b.Listen("tcp", ":1"); return err },
		"ListenPacket": func() error { _, err := p.b.ListenPacket("udp", ":1"); return err },
		"Close":        func() error { return errors.Join(p.b.Close(), net.ErrClosed) },
	} {
		if err := call(); !closed(err) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
}

// Dials that lead nowhere, some cancelled and the rest ended by Close; goleak sees to the rest.
func TestCloseWhileConnecting(t *testing.T) {
	before := runtime.NumGoroutine()
	s := newStack(t, nil)
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		var batch packet.Batch
		for s.Read(&batch) == nil {
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	var dials sync.WaitGroup
	for i := range 1000 {
		dials.Go(func() {
			ctx := ctx
			if i%2 == 0 {
				ctx = context.Background()
			}
			if c, err := s.DialContext(ctx, "tcp", addrB+":80"); err == nil {
				c.Close()
				t.Error("connected to nobody")
			}
		})
	}
	cancel()
	s.Close()
	dials.Wait()
	<-reading
	if n := len(s.ip.g.RegisteredEndpoints()); n != 0 {
		t.Errorf("%d endpoints left", n)
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, before %d", runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
	}
}

func TestCancelledDialLeavesNothing(t *testing.T) {
	s := newStack(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	dialled := make(chan error)
	go func() {
		_, err := s.DialContext(ctx, "tcp", addrB+":80")
		dialled <- err
	}()
	wantPacket(t, s) // the SYN
	cancel()
	if err := <-dialled; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if n := len(s.ip.g.RegisteredEndpoints()); n != 0 {
		t.Errorf("%d endpoints left", n)
	}
}

// Nobody reads the device: dials fill the queue, and Close returns all the same.
func TestCloseWithoutReader(t *testing.T) {
	s := newStack(t, nil)
	var dials sync.WaitGroup
	for range queueSlots + 20 {
		dials.Go(func() {
			if _, err := s.Dial("tcp", addrB+":80"); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%v", err)
			}
		})
	}
	for s.Stats().QueueFull == 0 {
		time.Sleep(time.Millisecond)
	}
	s.Close()
	dials.Wait()
}
