package config

import (
	"errors"
	"strings"
	"testing"
)

// TestSocksCheck is about listeners made by hand, as of a flag of the command line.
func TestSocksCheck(t *testing.T) {
	for _, tt := range []struct {
		socks Socks
		good  bool
	}{
		{Socks{Listen: "127.0.0.1:1080"}, true},
		{Socks{Listen: "127.1.2.3:0"}, true},
		{Socks{Listen: "[::1]:1080"}, true},
		{Socks{Listen: "[::ffff:127.0.0.1]:1080"}, true},
		{Socks{Listen: "localhost:1080"}, true},
		{Socks{Listen: "0.0.0.0:1080", Username: "me", Password: "secret"}, true},
		{Socks{Listen: ":1080", Username: "me", Password: strings.Repeat("x", 255)}, true},
		{Socks{}, false},
		{Socks{Listen: "1080"}, false},
		{Socks{Listen: "localhost:http"}, false},
		{Socks{Listen: "localhost.example.com:1080"}, false},
		{Socks{Listen: ":1080"}, false},
		{Socks{Listen: "[::]:1080"}, false},
		{Socks{Listen: "192.0.2.1:1080"}, false},
		{Socks{Listen: "0.0.0.0:1080", Username: "me"}, false},
		{Socks{Listen: "0.0.0.0:1080", Password: "secret"}, false},
		{Socks{Listen: "127.0.0.1:1080", Username: strings.Repeat("x", 256), Password: "secret"}, false},
		{Socks{Listen: "127.0.0.1:+80"}, false},
	} {
		err := tt.socks.Check()
		if (err == nil) != tt.good {
			t.Errorf("%s: %v", &tt.socks, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the password is told: %v", err)
		}
		if strings.Contains(tt.socks.String(), "secret") {
			t.Errorf("the password is shown: %s", &tt.socks)
		}
	}
}

func TestErrorsCanBeTakenApart(t *testing.T) {
	_, err := Parse("f", []byte("mtu: 1\n"), nil)
	var one *Error
	if !errors.As(err, &one) || one.File != "f" || one.Line != 1 {
		t.Errorf("got %+v", one)
	}
}
