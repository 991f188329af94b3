package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
)

// Folder is where the sockets of this user's processes are by custom: what a service manager has made for the process;
// the system's folder for root's; the user's runtime folder, or where there is none a private one among temporary files.
func Folder() string {
	if list := filepath.SplitList(os.Getenv("RUNTIME_DIRECTORY")); len(list) > 0 { // systemd.exec(5)
		return list[0]
	}
	uid := os.Geteuid()
	switch {
	case uid == 0 && runtime.GOOS == "linux":
		return "/run/adit"
	case uid == 0:
		return "/var/run/adit"
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "adit")
	}
	name := "adit"
	if uid > 0 { // of a system whose folder for temporary files is everybody's
		name += "-" + strconv.Itoa(uid)
	}
	return filepath.Join(os.TempDir(), name)
}

// Path is where the socket of that name is by custom.
func Path(name string) string { return filepath.Join(Folder(), name+extension) }

const extension = ".sock"

// Running returns the sockets in folder at which somebody answers, sorted. A folder that is not there has none.
func Running(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = checkFolder(folder)
	}
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		if filepath.Ext(path) == extension && errors.Is(checkStale(path), ErrInUse) {
			found = append(found, path)
		}
	}
	slices.Sort(found)
	return found, nil
}

// makeFolder makes the folder of a socket, or sees that the one there will do.
func makeFolder(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	return checkFolder(folder)
}

// errFolder is about a folder in which others could put a socket of their own.
func errFolder(folder, why string) error {
	return fmt.Errorf("the folder %s %s: want one that is this user's, with mode 0700", folder, why)
}
