//go:build unix

package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// checkFolder refuses a folder in which another user could put, or swap, a socket. Root is taken to have made its own so.
func checkFolder(folder string) error {
	info, err := os.Lstat(folder)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	owner, me := int(st.Uid), os.Geteuid()
	switch {
	case !ok || !info.IsDir():
		return errFolder(folder, "is none")
	case me != 0 && owner != me && owner != 0:
		return errFolder(folder, fmt.Sprintf("belongs to user %d", owner))
	case info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0:
		return errFolder(folder, fmt.Sprintf("has mode %04o", info.Mode().Perm()))
	}
	return nil
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
