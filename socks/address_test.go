package socks

import (
	"strings"
	"testing"
)

func TestCheckListen(t *testing.T) {
	long := strings.Repeat("x", 256)
	for _, tt := range []struct {
		addr, username, password string
		want                     string // part of the error; "" for none
	}{
		{"127.0.0.1:1080", "", "", ""},
		{"127.8.9.10:0", "", "", ""},
		{"[::1]:1080", "", "", ""},
		{"[::ffff:127.0.0.1]:1080", "", "", ""},
		{"localhost:1080", "", "", ""},
		{"127.0.0.1:1080", "user", "pass", ""},
		{"0.0.0.0:1080", "user", "pass", ""},
		{":1080", "user", "pass", ""},
		{"0.0.0.0:1080", "", "", "listen on 127.0.0.1:1080"},
		{":1080", "", "", "password"},
		{"[::]:1080", "", "", "password"},
		{"192.168.1.5:1080", "", "", "password"},
		{"[fe80::1%eth0]:1080", "", "", "password"},
		{"localhost.example.com:1080", "", "", "password"},
		{"127.0.0.1", "", "", "host:port"},
		{"127.0.0.1:socks", "", "", "port"},
		{"127.0.0.1:65536", "", "", "port"},
		{"127.0.0.1:1080", "user", "", "without a password"},
		{"127.0.0.1:1080", "", "pass", "without a username"},
		{"127.0.0.1:1080", long, "pass", "255"},
		{"127.0.0.1:1080", "user", long, "255"},
		{"127.0.0.1:1080", "us:er", "pass", "colon"},
	} {
		err := CheckListen(tt.addr, tt.username, tt.password)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.addr, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s %q: %v, want %q", tt.addr, tt.username, err, tt.want)
		case err != nil && tt.password != "" && strings.Contains(err.Error(), tt.password) && tt.password != "pass":
			t.Errorf("the error shows the password: %v", err)
		}
	}
}
