//go:build unix

package config

import "testing"

func TestShellWord(t *testing.T) {
	for path, want := range map[string]string{
		"laptop.key":  "laptop.key",
		"my key":      "'my key'",
		"it's.key":    `'it'\''s.key'`,
		"-rf":         "'./-rf'",
		"$HOME/a.key": "'$HOME/a.key'",
		"":            "''",
	} {
		if got := shellWord(path); got != want {
			t.Errorf("%q: got %s, want %s", path, got, want)
		}
	}
}
