package config

import (
	"strings"
	"testing"

	"github.com/adit-overlay/adit/wire"
)

// noIdentities are public keys of low order, and other forms of keys, as hex.
var noIdentities = []string{
	strings.Repeat("00", 32),
	"01" + strings.Repeat("00", 31),
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ec" + strings.Repeat("ff", 30) + "7f",
	"ed" + strings.Repeat("ff", 30) + "7f", // 0, by its other name
	"f6" + strings.Repeat("ff", 30) + "7f", // 9
	strings.Repeat("ff", 32),
	"09" + strings.Repeat("00", 30) + "80", // 9, with the highest bit
}

func TestKeysThatAreNoIdentityAreRefused(t *testing.T) {
	nine := "09" + strings.Repeat("00", 31)
	for _, key := range append(noIdentities, nine) {
		for name, parse := range map[string]func() error{
			"peer": func() error {
				_, err := ParsePeer("f", []byte(leastPeer+"peers: [{public_key: \""+key+"\", allowed_ips: [10.9.0.3/32]}]\n"), testKeys(t))
				return err
			},
			"relay of a peer": func() error {
				_, err := ParsePeer("f", []byte(leastPeer+"relays: [{public_key: \""+key+"\", endpoint: \"192.0.2.1:5040\"}]\n"), testKeys(t))
				return err
			},
			"member": func() error {
				_, err := ParseRelay("f", []byte("private_key_file: self.key\nlisten: \":5040\"\nmembers: [{name: web, public_key: \""+key+"\", allowed_ips: [10.9.0.3/32]}]\n"), testKeys(t))
				return err
			},
		} {
			err := parse()
			if key == nine {
				if err != nil {
					t.Errorf("%s: %v: the test does not reach the key", name, err)
				}
			} else if err == nil || !strings.Contains(err.Error(), "key") {
				t.Errorf("%s: %s: %v", name, key, err)
			}
		}
		if _, err := wire.ParsePublicKey(key); (err == nil) != (key == nine) {
			t.Errorf("%s: %v", key, err)
		}
	}
}
