package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// ErrInUse says that another process answers at a socket.
var ErrInUse = errors.New("another process answers there")

// maxPath is the longest path a socket can have, on every system (struct sockaddr_un).
const maxPath = 103

// bind opens the socket at path, which nobody but this user may then connect to.
func bind(path string) (net.Listener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("control socket %s: the path has %d bytes, and no socket's may have more than %d", path, len(path), maxPath)
	}
	if err := makeFolder(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	for range bindTries {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err == nil {
			// Until then who connects is judged by the gate alone.
			if err := os.Chmod(path, 0o600); err != nil {
				l.Close()
				return nil, fmt.Errorf("control socket: %w", err)
			}
			return l, nil
		}
		if _, none := os.Lstat(path); none != nil {
			return nil, fmt.Errorf("control socket: %w", err)
		}
		if err := removeStale(path); err != nil {
			return nil, fmt.Errorf("control socket %s: %w", path, err)
		}
	}
	return nil, fmt.Errorf("control socket %s: others keep making and removing it", path)
}

// bindTries is how often a socket that others leave behind is removed before that seems to have no end.
const bindTries = 4

// removeStale removes the socket of a process that has died. It takes it aside first, so that what is removed is what was
// tried: of two processes that start at once and find the same, one may have put its own there meanwhile.
func removeStale(path string) error {
	if err := checkStale(path); err != nil {
		return err
	}
	aside := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.Rename(path, aside); err != nil {
		return ignoreMissing(err)
	}
	if err := checkStale(aside); err != nil {
		return errors.Join(err, os.Rename(aside, path))
	}
	return ignoreMissing(os.Remove(aside))
}

// checkStale returns nil if nobody answers at path.
func checkStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return ignoreMissing(err)
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is something that is no socket")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		c.Close()
		return ErrInUse
	case isRefused(err), errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
