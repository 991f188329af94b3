//go:build unix

package config

import (
	"fmt"
	"io/fs"
	"strings"
)

func checkSecret(path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("open to others than its owner (mode %04o): run chmod 600 %s", mode, shellWord(path))
	}
	return nil
}

// shellWord quotes a path so that the remedy can be pasted into a shell.
func shellWord(path string) string {
	plain := func(r rune) bool {
		return 'a' <= r|0x20 && r|0x20 <= 'z' || '0' <= r && r <= '9' || strings.ContainsRune("/._-+:,@%", r)
	}
	if path != "" && path[0] != '-' && strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	if strings.HasPrefix(path, "-") {
		path = "./" + path
	}
	return oneLine("'" + strings.ReplaceAll(path, "'", `'\''`) + "'")
}
