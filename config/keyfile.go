package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/adit-overlay/adit/wire"
)

// maxKeyFile bounds what is read of a key file. PEM of an X25519 key is 119 bytes.
const maxKeyFile = 16 << 10

// ReadKeyFile reads a file that holds a secret. On unix it refuses one that the group or others
// may read, write or execute, and the error says how to repair that.
func ReadKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The open file is judged, not the name: a name can be given to another file in between.
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errors.New("a folder: want a file that holds one key")
	}
	if err := checkSecret(path, info); err != nil {
		return nil, err
	}
	return readOpen(f, maxKeyFile)
}

// ParsePrivateKey reads the content of a private key file: PEM (PKCS #8, X25519), or the key
// in base64 or hex. The error repeats nothing of the content.
func ParsePrivateKey(data []byte) (wire.PrivateKey, error) {
	if bytes.Contains(data, []byte("-----BEGIN")) {
		return wire.ParsePrivateKeyPEM(data)
	}
	return wire.ParsePrivateKey(string(data))
}

// LoadPrivateKey reads a private key file by [ReadKeyFile] and [ParsePrivateKey].
func LoadPrivateKey(path string) (wire.PrivateKey, error) {
	return loadPrivateKey(path, ReadKeyFile)
}

func loadPrivateKey(path string, read ReadKeys) (wire.PrivateKey, error) {
	data, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return wire.PrivateKey{}, fmt.Errorf("%s: %s: adit keygen --out %[1]s makes one", oneLine(path), reason(err))
	}
	if err != nil {
		return wire.PrivateKey{}, fmt.Errorf("%s: %s", oneLine(path), reason(err))
	}
	k, err := ParsePrivateKey(data)
	if err != nil {
		return wire.PrivateKey{}, fmt.Errorf("%s: %w", oneLine(path), err)
	}
	return k, nil
}

func loadPresharedKey(path string, read ReadKeys) (wire.PresharedKey, error) {
	data, err := read(path)
	if err != nil {
		return wire.PresharedKey{}, fmt.Errorf("%s: %s", oneLine(path), reason(err))
	}
	k, err := wire.ParsePresharedKey(string(data))
	if err != nil {
		return wire.PresharedKey{}, fmt.Errorf("%s: %w", oneLine(path), err)
	}
	return k, nil
}

// publicKey does not repeat what it refuses: it may be a private key put in the wrong place.
func (v value) publicKey() (wire.PublicKey, bool) {
	text, ok := v.text()
	if !ok {
		return wire.PublicKey{}, false
	}
	k, err := wire.ParsePublicKey(text)
	switch {
	case errors.Is(err, wire.ErrKey):
		v.wrong("not a usable key: no private key belongs to it; want what adit pubkey prints")
	case err != nil:
		v.wrong("not a valid key: want 32 bytes in base64 (44 characters) or 64 hex digits")
	}
	return k, err == nil
}
