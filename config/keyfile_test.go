package config

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestLoadFindsKeysBesideTheFile loads from disk, from another folder than the file's.
func TestLoadFindsKeysBesideTheFile(t *testing.T) {
	dir := t.TempDir()
	pem, err := selfKey.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "keys", "self.key"), pem, 0o600)
	path := filepath.Join(dir, "adit.yaml")
	write(t, path, []byte(strings.ReplaceAll(leastPeer, "self.key", "keys/self.key")), 0o644)

	p, err := LoadPeer(path)
	if err != nil {
		t.Fatal(err)
	}
	if p.PrivateKey != selfKey {
		t.Error("another key was read")
	}
	if _, err := Load(path); err != nil {
		t.Error(err)
	}
	if _, err := LoadRelay(path); err == nil {
		t.Error("LoadRelay took a file without members")
	}
}

func TestLoadUnreadable(t *testing.T) {
	dir := t.TempDir()
	gone := filepath.Join(dir, "gone.yaml")
	if _, err := Load(gone); err == nil || err.Error() != gone+": cannot be read: there is no such file" {
		t.Errorf("got %v", err)
	}
	large := filepath.Join(dir, "large.yaml")
	write(t, large, bytes.Repeat([]byte("#"), maxFile+1), 0o644)
	if _, err := LoadRelay(large); err == nil || err.Error() != large+": cannot be read: larger than 4194304 bytes" {
		t.Errorf("got %v", err)
	}
}

func TestKeyFileModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("file modes say nothing about access on Windows")
	}
	path := filepath.Join(t.TempDir(), "self.key")
	write(t, path, []byte(strings.Repeat("11", 32)), 0o600)
	for mode := os.FileMode(0o400); mode <= 0o777; mode++ {
		if mode&0o400 == 0 {
			continue
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadPrivateKey(path)
		if (err == nil) != (mode&0o077 == 0) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	want := path + ": open to others than its owner (mode 0644): run chmod 600 " + path
	if _, err := LoadPrivateKey(path); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestKeyFileContent(t *testing.T) {
	dir := t.TempDir()
	long := filepath.Join(dir, "long.key")
	write(t, long, bytes.Repeat([]byte("A"), maxKeyFile+1), 0o600)
	for path, want := range map[string]string{
		dir:                             "a folder: want a file that holds one key",
		long:                            "larger than 16384 bytes",
		filepath.Join(dir, "gone.key"):  "there is no such file: adit keygen --out " + filepath.Join(dir, "gone.key") + " makes one",
		filepath.Join(dir, "pem.key"):   "private key: PEM block is of another type; want \"PRIVATE KEY\"",
		filepath.Join(dir, "zeros.key"): "private key: all zeros is no key",
	} {
		write(t, filepath.Join(dir, "pem.key"), []byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), 0o600)
		write(t, filepath.Join(dir, "zeros.key"), []byte(strings.Repeat("0", 64)), 0o600)
		if _, err := LoadPrivateKey(path); err == nil || err.Error() != path+": "+want {
			t.Errorf("got %v\nwant %s: %s", err, path, want)
		}
	}
}

func write(t *testing.T, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
}
