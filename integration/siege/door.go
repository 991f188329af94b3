//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/adit-overlay/adit/integration/bench/load"
	"github.com/adit-overlay/adit/integration/internal/roster"
	"github.com/adit-overlay/adit/integration/lab"
)

// A door is a field for crowds at a proxy: two rootless peers, of which A has a SOCKS listener and B opens connections into a
// network of its own for others. There is the host inside, and on it a service.
//
//	clients, on A's host ── A ══ overlay ══ B ── inside
type door struct {
	*field
	proxy  load.Socks
	inside *lab.Host
}

const (
	insideNet = "192.168.7.0/24"
	insideIP  = "192.168.7.9"
	echoPort  = "7"  // of the program inside
	flowPort  = "19" // sends without end
	countPort = "20" // how many connections there are
	proxyAt   = "127.0.0.1:1080"

	// greeting is what each connection carries when it is opened, so that none is an idle one that was never used.
	greeting = 64 << 10
)

// door makes one for so many connections. limits is what A's file says of its listener beside the address.
func (s *siege) door(conns int, limits string) *door {
	s.raise(conns)
	f := &field{Network: lab.New(s), s: s}
	f.dir = f.TempDir(lab.User{})
	f.hostA, f.hostB = f.Host("a"), f.Host("b")
	inside := f.Host("inside")
	f.Cable(lab.Plug(f.hostA, "192.0.2.2/24"), lab.Plug(f.hostB, "192.0.2.1/24"))
	f.Cable(lab.Plug(f.hostB, "192.168.7.2/24"), lab.Plug(inside, insideIP+"/24"))
	d := &door{field: f, proxy: load.Socks{Proxy: proxyAt, Dial: f.hostA.DialContext}, inside: inside}
	f.says(f.launch(inside, "inside"), "ready")
	peer := func(n int, allowed, more string) string {
		return fmt.Sprintf("peers: [{public_key: %q, allowed_ips: [%v/32%s]%s}]\n", roster.Key(n).Public(), roster.IPv4(n), allowed, more)
	}
	f.b = f.launch(f.hostB, "adit", "up", "-c", f.memberFile(memberB, stack,
		fmt.Sprintf("listen: \":%d\"\nadvertise: [%s]\n", port, insideNet)+peer(memberA, "", "")))
	f.a = f.start(f.hostA, "adit", "up", "-c", f.memberFile(memberA, stack,
		fmt.Sprintf("socks: {listen: %q%s}\n", proxyAt, limits)+peer(memberB, ", "+insideNet, fmt.Sprintf(", endpoint: \"192.0.2.1:%d\"", port))))
	f.says(f.b, "msg=ready")
	return d
}

// raise lets this process, and those it starts, have a descriptor for each of so many connections, and some more.
func (s *siege) raise(conns int) {
	want := uint64(conns + 1000)
	var have syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &have); err != nil {
		s.Fatalf("descriptors: %v", err)
	}
	limit := syscall.Rlimit{Cur: max(want, have.Cur), Max: max(want, have.Max)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		s.Fatalf("this machine does not allow %d descriptors for a process, and %d are needed: %v", want, want, err)
	}
}

// served is how many connections the service has.
func (d *door) served() int {
	c, err := d.s.dial(d.inside, "tcp", "127.0.0.1:"+countPort)
	if err != nil {
		d.s.Fatalf("the service: %v", err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	text, err := io.ReadAll(c)
	n, bad := strconv.Atoi(string(text))
	if err := errors.Join(err, bad); err != nil {
		d.s.Fatalf("the service: %v", err)
	}
	return n
}

// emptied asks that all connections have ended at the service as well, soon after they did here.
func (d *door) emptied() {
	begin := time.Now()
	n := d.served()
	for ; n > 0 && time.Since(begin) < 2*patience; n = d.served() {
		d.s.sleep(100 * time.Millisecond)
	}
	d.s.found(n == 0, "nothing is left at the far side", "%d connections, after %v", n, time.Since(begin).Round(100*time.Millisecond))
}

// dial opens a connection to the service by the proxy.
func (d *door) dial(port string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.s.Context(), patience)
	defer cancel()
	return d.proxy.DialContext(ctx, "tcp", net.JoinHostPort(insideIP, port))
}

// openers is how many connections are being opened at a time.
const openers = 64

// openAll opens so many, and has each carry the greeting.
func (d *door) openAll(n int) []net.Conn {
	conns := make([]net.Conn, n)
	d.all(n, openers, func(i int) error {
		c, err := d.dial(echoPort)
		if err != nil {
			return err
		}
		conns[i] = c
		return d.echo(c, i, greeting)
	})
	return conns
}

// all does something n times, so many at once. One that fails ends the row.
func (d *door) all(n, atOnce int, do func(i int) error) {
	var next, failed atomic.Int32
	var first atomic.Pointer[error]
	var wg sync.WaitGroup
	for range min(n, atOnce) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					failed.Add(1)
					first.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := first.Load(); err != nil {
		d.s.Fatalf("%d of %d connections failed; the first: %v", failed.Load(), n, *err)
	}
}

// pattern is what connection i carries, different from what others do.
func pattern(i, size int) []byte {
	b := make([]byte, size)
	x := uint32(i)*2654435761 + 1
	for k := range b {
		x = x*1664525 + 1013904223
		b[k] = byte(x >> 24)
	}
	return b
}

// echo sends the pattern of connection i and waits until it is back.
func (d *door) echo(c net.Conn, i, size int) error {
	c.SetDeadline(time.Now().Add(patience))
	defer c.SetDeadline(time.Time{})
	want := pattern(i, size)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- err
	}()
	got := make([]byte, size)
	_, err := io.ReadFull(c, got)
	if err := errors.Join(<-sent, err); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("connection %d: what came back is not what was sent", i)
	}
	return nil
}

// exchange has all connections carry so much, there and back, at once, and end by ends of stream. It returns the
// longest time that one received nothing.
func (d *door) exchange(conns []net.Conn, size int) (stall time.Duration, err error) {
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			longest, err := d.exchangeOne(c, i, size)
			mu.Lock()
			defer mu.Unlock()
			stall = max(stall, longest)
			if err != nil {
				errs = append(errs, fmt.Errorf("connection %d: %w", i, err))
			}
		})
	}
	wg.Wait()
	if len(errs) > 0 {
		return stall, fmt.Errorf("%d of %d failed; the first: %w", len(errs), len(conns), errs[0])
	}
	return stall, nil
}

func (d *door) exchangeOne(c net.Conn, i, size int) (longest time.Duration, err error) {
	defer c.Close()
	want := pattern(i, size)
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- errors.Join(err, c.(interface{ CloseWrite() error }).CloseWrite())
	}()
	got, b := 0, make([]byte, 4<<10)
	for last := time.Now(); ; {
		n, err := c.Read(b)
		longest = max(longest, time.Since(last))
		last = time.Now()
		if got+n > size || !bytes.Equal(b[:n], want[got:got+n]) {
			return longest, fmt.Errorf("what came back after %d bytes is not what was sent", got)
		}
		got += n
		switch {
		case err == io.EOF && got < size:
			return longest, fmt.Errorf("ended after %d of %d bytes", got, size)
		case err == io.EOF:
			return longest, <-sent
		case err != nil:
			return longest, fmt.Errorf("after %d of %d bytes: %w", got, size, err)
		}
	}
}

// slow has so many clients send what says tells, a byte a second, or nothing, and tells after how long each was turned out.
func (d *door) slow(n int, says func(i int) []byte) <-chan time.Duration {
	return d.wait(n, func() (net.Conn, error) { return d.s.dial(d.hostA, "tcp", proxyAt) }, func(c net.Conn) {
		if says != nil {
			go func() {
				for i := 0; ; i++ {
					if _, err := c.Write(says(i)); err != nil {
						return
					}
					time.Sleep(time.Second) // a byte a second
				}
			}()
		}
		io.Copy(io.Discard, c)
	})
}

// unread has so many clients ask for a stream without end, and read none of it.
func (d *door) unread(n int) <-chan time.Duration {
	return d.wait(n, func() (net.Conn, error) { return d.dial(flowPort) }, func(c net.Conn) {
		raw, err := c.(syscall.Conn).SyscallConn()
		for err == nil && open(raw) {
			time.Sleep(50 * time.Millisecond) // before the next look
		}
	})
}

// open reports whether the far end has not closed or reset the connection, without reading from it.
func open(raw syscall.RawConn) (is bool) {
	const established = 1 // TCP_ESTABLISHED, tcpi_state
	raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		is = err == nil && info.State == established
	})
	return is
}

// wait runs a client on each of n connections, and tells how long each lasted.
func (d *door) wait(n int, dial func() (net.Conn, error), client func(net.Conn)) <-chan time.Duration {
	ended := make(chan time.Duration, n)
	var all sync.WaitGroup
	d.all(n, openers, func(int) error {
		c, err := dial()
		if err != nil {
			return err
		}
		begin := time.Now()
		all.Go(func() {
			defer c.Close()
			defer context.AfterFunc(d.s.Context(), func() { c.Close() })()
			client(c)
			ended <- time.Since(begin)
		})
		return nil
	})
	go func() {
		all.Wait()
		close(ended)
	}()
	return ended
}
