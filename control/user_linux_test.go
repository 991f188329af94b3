package control

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/adit-overlay/adit/internal/citest"
)

// TestOtherUsersAreCutOff has a thread become nobody and connect to a socket whose permissions would let it.
func TestOtherUsersAreCutOff(t *testing.T) {
	if os.Geteuid() != 0 {
		citest.Skipf(t, "needs root, to become another user: not shown here is that a connection of theirs is cut off")
	}
	path := filepath.Join(place(t), "laptop.sock")
	s := serveAt(t, path)
	for _, open := range []string{filepath.Dir(path), path} {
		if err := os.Chmod(open, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	type result struct {
		n   int
		err error
	}
	got := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			got <- result{err: errno}
			return
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			defer unix.Close(fd)
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}
		n := 0
		if err == nil {
			unix.Write(fd, []byte("GET /v1/status HTTP/1.1\r\nHost: adit\r\n\r\n")) // fails if it is cut off already
			n, err = unix.Read(fd, make([]byte, 1))
			if err == unix.ECONNRESET {
				n, err = 0, nil
			}
		}
		got <- result{n, err}
	}()
	if r := <-got; r.n != 0 || r.err != nil {
		t.Errorf("another user read %d bytes, %v", r.n, r.err)
	}
	if st := s.Stats(); st.RefusedUsers != 1 || st.Requests != 0 {
		t.Errorf("%+v", st)
	}
	wantStatus(t, path) // and the owner is served on
}
