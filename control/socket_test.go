//go:build unix

package control

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func serveAt(t *testing.T, path string) *Server {
	t.Helper()
	s, err := Serve(path, testAPI, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// place is a folder whose path is short enough for a socket's.
func place(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func wantStatus(t *testing.T, path string) {
	t.Helper()
	var st map[string]string
	if err := NewClient(path).Status(t.Context(), &st); err != nil || st["name"] != "laptop" {
		t.Fatalf("%v, %v", st, err)
	}
}

func TestClientAndServer(t *testing.T) {
	path := filepath.Join(place(t), "run", "laptop.sock")
	s := serveAt(t, path)
	wantStatus(t, path)
	c := NewClient(path)
	var answer struct{ Address string }
	if err := c.Ping(t.Context(), "web.adit", 0, &answer); err != nil || answer.Address != "10.9.0.3" {
		t.Errorf("%v, %v", answer, err)
	}
	var e *Error
	if err := c.Ping(t.Context(), "nobody.adit", 0, &answer); !errors.As(err, &e) || e.Code != 404 || !strings.Contains(e.Msg, "no member") {
		t.Errorf("%v", err)
	}
	if st := s.Stats(); st.Requests != 3 || st.RefusedUsers != 0 {
		t.Errorf("%+v", st)
	}
	s.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestSocketIsItsOwnersAlone(t *testing.T) {
	path := filepath.Join(place(t), "run", "laptop.sock")
	serveAt(t, path)
	for name, want := range map[string]fs.FileMode{path: fs.ModeSocket | 0o600, filepath.Dir(path): fs.ModeDir | 0o700} {
		if info, err := os.Lstat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
}

func TestFolderOthersCanWriteIsRefused(t *testing.T) {
	dir := place(t)
	os.Chmod(dir, 0o777)
	if _, err := Serve(filepath.Join(dir, "laptop.sock"), testAPI, nil); err == nil || !strings.Contains(err.Error(), "has mode 0777") {
		t.Errorf("%v", err)
	}
	other := place(t)
	if err := os.Symlink(other, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := Serve(filepath.Join(dir, "link", "laptop.sock"), testAPI, nil); err == nil {
		t.Error("a folder by a symbolic link is taken")
	}
}

// TestSocketOfTheDeadIsReplaced has a socket file that nobody listens at any more, as a killed process leaves it.
func TestSocketOfTheDeadIsReplaced(t *testing.T) {
	path := filepath.Join(place(t), "laptop.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if found, err := Running(filepath.Dir(path)); err != nil || len(found) > 0 {
		t.Errorf("running: %v, %v", found, err)
	}
	serveAt(t, path)
	wantStatus(t, path)
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
}

func TestSocketOfTheLivingIsLeftAlone(t *testing.T) {
	path := filepath.Join(place(t), "laptop.sock")
	serveAt(t, path)
	if _, err := Serve(path, testAPI, nil); !errors.Is(err, ErrInUse) {
		t.Errorf("%v", err)
	}
	wantStatus(t, path)
}

func TestFileThatIsNoSocketIsLeftAlone(t *testing.T) {
	path := filepath.Join(place(t), "laptop.sock")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Serve(path, testAPI, nil); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(path); string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestPathTooLongForASocketIsToldSo(t *testing.T) {
	if _, err := Serve("/"+strings.Repeat("x", maxPath), testAPI, nil); err == nil || !strings.Contains(err.Error(), "no socket's may have more than 103") {
		t.Errorf("%v", err)
	}
}

func TestRunningFindsAllThatAnswer(t *testing.T) {
	dir := place(t)
	for _, name := range []string{"b", "a"} {
		serveAt(t, filepath.Join(dir, name+".sock"))
	}
	want := []string{filepath.Join(dir, "a.sock"), filepath.Join(dir, "b.sock")}
	if found, err := Running(dir); err != nil || !slices.Equal(found, want) {
		t.Errorf("%v, %v", found, err)
	}
	if found, err := Running(filepath.Join(dir, "none")); err != nil || len(found) != 0 {
		t.Errorf("%v, %v", found, err)
	}
}

func TestFolderByCustom(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", "/run/adit-laptop:/run/other")
	if got := Path("laptop"); got != "/run/adit-laptop/laptop.sock" {
		t.Error(got)
	}
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	want := "/run/user/7/adit"
	if os.Geteuid() == 0 {
		want = Folder()
		if !strings.HasSuffix(want, "/run/adit") {
			t.Error(want)
		}
	}
	if got := Folder(); got != want {
		t.Error(got)
	}
}

// TestClientOfNobody: what a client is told is for package main to put into words.
func TestClientOfNobody(t *testing.T) {
	err := NewClient(filepath.Join(place(t), "none.sock")).Status(context.Background(), new(any))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
