package config

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/adit-overlay/adit/wire"
)

// Keys of tests: nobody runs with a key of 32 equal bytes.
var (
	selfKey  = testKey(0x11)
	webKey   = testKey(0x22)
	relayKey = testKey(0x33)
	psk      = wire.PresharedKey(testKey(0x66))
	webPSK   = wire.PresharedKey(testKey(0x77))
)

func testKey(b byte) (k wire.PrivateKey) {
	for i := range k {
		k[i] = b
	}
	return k
}

func testKeys(t testing.TB) ReadKeys {
	pem, err := selfKey.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	return keysFrom(map[string][]byte{
		"self.key": pem,
		"net.psk":  []byte(strings.Repeat("66", 32) + "\n"),
		"web.psk":  []byte(strings.Repeat("77", 32) + "\n"),
	})
}

func prefixes(ss ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func check(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

const leastPeer = `
private_key_file: self.key
addresses: [10.9.0.2/24]
listen: ":5040"
`

func TestLeastPeerGetsDefaults(t *testing.T) {
	p, err := ParsePeer("adit.yaml", []byte(leastPeer), testKeys(t))
	if err != nil {
		t.Fatal(err)
	}
	check(t, p, &Peer{
		Mode:       ModeAuto,
		Interface:  "adit0",
		PrivateKey: selfKey,
		Addresses:  prefixes("10.9.0.2/24"),
		Listen:     ":5040",
		RekeyAfter: 5 * time.Minute,
		Keepalive:  25 * time.Second,
	})
}

// What the underlay carries is found out when the peer starts.
func TestMTUAuto(t *testing.T) {
	for _, said := range []string{"auto", `"auto"`} {
		p, err := ParsePeer("adit.yaml", []byte(leastPeer+"mtu: "+said+"\n"), testKeys(t))
		if err != nil || p.MTU != 0 {
			t.Errorf("mtu: %s: %+v, %v", said, p, err)
		}
	}
}

func TestControl(t *testing.T) {
	for said, want := range map[string]string{
		"off": ControlOff, "/run/adit/a.sock": "/run/adit/a.sock", "a.sock": filepath.Join("dir", "a.sock"), "./off": filepath.Join("dir", "off"),
	} {
		p, err := ParsePeer("dir/adit.yaml", []byte(leastPeer+"control: "+said+"\n"), func(string) ([]byte, error) {
			return []byte(strings.Repeat("11", 32)), nil
		})
		if err != nil || p.Control != want {
			t.Errorf("control: %s: %+v, %v", said, p, err)
		}
	}
}

func TestPeerWithEveryKey(t *testing.T) {
	p, err := ParsePeer("adit.yaml", []byte(`# a comment
name: laptop
mode: netstack
interface: adit1
private_key_file: self.key
addresses: [10.9.0.2/24, "fd00:9::2/64"]
listen: "[::]:5040"
pre_shared_key_file: net.psk
mtu: 1280   # the least IPv6 takes
advertise:
- 192.168.1.0/24
- "2001:db8:1::/48"
advertise_limits: {max_connections: 400, max_connections_per_client: 40, max_flows: 30, max_flows_per_client: 3, flow_timeout: 90}
socks:
  listen: "0.0.0.0:1080"
  username: me
  password: 0123
  max_connections: 500
  max_connections_per_client: 20
  max_dials_per_host: 7
  handshake_timeout: 5s
  idle_timeout: 600
relays:
  - {public_key: "`+relayKey.Public().String()+`", endpoint: "relay.example.com:5040", pre_shared_key_file: web.psk}
peers:
  - name: web
    public_key: D6poTtKIZ7l/Smot7l34zpdOdrcBjj8iocTPJnhXDyA=
    endpoint: "[2001:db8::7]:5040"
    allowed_ips: [10.9.0.3/32, "fd00:9::3/128", 0.0.0.0/0]
    pre_shared_key_file: web.psk
keepalive: 10
rekey_after: 2m30s
udp: {gso: false, gro: true}
control: off
log: {level: debug, format: json}
`), testKeys(t))
	if err != nil {
		t.Fatal(err)
	}
	check(t, p, &Peer{
		Name:         "laptop",
		Mode:         ModeNetstack,
		Interface:    "adit1",
		PrivateKey:   selfKey,
		PresharedKey: psk,
		Addresses:    prefixes("10.9.0.2/24", "fd00:9::2/64"),
		Listen:       "[::]:5040",
		MTU:          1280,
		Advertise:    prefixes("192.168.1.0/24", "2001:db8:1::/48"),
		AdvertiseLimits: AdvertiseLimits{
			MaxConnections: 400, MaxConnectionsPerClient: 40, MaxFlows: 30, MaxFlowsPerClient: 3, FlowTimeout: 90 * time.Second,
		},
		Socks: &Socks{
			Listen: "0.0.0.0:1080", Username: "me", Password: "0123",
			MaxConnections: 500, MaxConnectionsPerClient: 20, MaxDialsPerHost: 7, HandshakeTimeout: 5 * time.Second, IdleTimeout: 10 * time.Minute,
		},
		Relays: []RelayEndpoint{{PublicKey: relayKey.Public(), PresharedKey: webPSK, Endpoint: "relay.example.com:5040"}},
		Peers: []Remote{{
			Name:         "web",
			PublicKey:    webKey.Public(),
			PresharedKey: webPSK,
			Endpoint:     "[2001:db8::7]:5040",
			AllowedIPs:   prefixes("10.9.0.3/32", "fd00:9::3/128", "0.0.0.0/0"),
		}},
		RekeyAfter: 150 * time.Second,
		Keepalive:  10 * time.Second,
		UDP:        UDP{NoGSO: true},
		Control:    ControlOff,
		Log:        Log{Level: slog.LevelDebug, Format: "json"},
	})
}

func TestRelayWithEveryKey(t *testing.T) {
	r, err := ParseRelay("relay.yaml", []byte(`
name: hub
private_key_file: self.key
listen: "0.0.0.0:5040"
pre_shared_key_file: net.psk
addresses: [10.9.0.1/24]
mode: tun
interface: hub0
mtu: 1300
members:
  - {name: web, public_key: D6poTtKIZ7l/Smot7l34zpdOdrcBjj8iocTPJnhXDyA=, allowed_ips: [10.9.0.3/32, 192.168.1.0/24]}
limits: {circuits_per_member: 10, bytes_per_second_per_member: 1000000}
keepalive: 20s
rekey_after: 60
udp: {gro: false}
control: /run/adit.sock
log: {level: warn}
`), testKeys(t))
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, &Relay{
		Name:         "hub",
		PrivateKey:   selfKey,
		PresharedKey: psk,
		Listen:       "0.0.0.0:5040",
		Members: []Member{{
			Name: "web", PublicKey: webKey.Public(), AllowedIPs: prefixes("10.9.0.3/32", "192.168.1.0/24"),
		}},
		Limits:     Limits{CircuitsPerMember: 10, BytesPerSecondPerMember: 1000000},
		RekeyAfter: time.Minute,
		Keepalive:  20 * time.Second,
		UDP:        UDP{NoGRO: true},
		Control:    "/run/adit.sock",
		Log:        Log{Level: slog.LevelWarn},
		Addresses:  prefixes("10.9.0.1/24"),
		Mode:       ModeTUN,
		Interface:  "hub0",
		MTU:        1300,
	})
}

// TestRightForms gives what is right in forms that people and editors write it in.
func TestRightForms(t *testing.T) {
	for name, text := range map[string]string{
		"JSON":              `{"private_key_file": "self.key", "addresses": ["10.9.0.2/24"], "listen": ":5040"}`,
		"CRLF":              strings.ReplaceAll(leastPeer, "\n", "\r\n"),
		"byte order mark":   "\xef\xbb\xbf" + leastPeer,
		"document markers":  "---" + leastPeer + "...\n",
		"no final newline":  strings.TrimSpace(leastPeer),
		"trailing document": leastPeer + "---\n",
		"tab in a comment":  leastPeer + "# remark\there\n",
		"unquoted listen":   strings.ReplaceAll(leastPeer, `"`, ""),
		"single address":    leastPeer + "advertise: [192.168.1.7/32]\n",
		"/31 network":       strings.ReplaceAll(leastPeer, "10.9.0.2/24", "10.9.0.2/31"),
		"/32 host":          strings.ReplaceAll(leastPeer, "10.9.0.2/24", "10.9.0.2/32"),
		"empty lists":       leastPeer + "relays: []\npeers: []\n",
		"socks by default":  leastPeer + "socks: {}\n",
		"socks localhost":   leastPeer + "socks: {listen: localhost:1080}\n",
		"socks on ::1":      leastPeer + "socks: {listen: \"[::1]:1080\"}\n",
		"half the Internet": leastPeer + "peers: [{public_key: " + webKey.Public().String() + ", allowed_ips: [0.0.0.0/1]}]\n",
		"endpoint by zone":  leastPeer + "relays: [{public_key: " + webKey.Public().String() + ", endpoint: \"[fe80::1%eth0]:5040\"}]\n",
		"key in hex":        leastPeer + "relays: [{public_key: 0faa684ed28867b97f4a6a2dee5df8ce974e76b7018e3f22a1c4cf2678570f20, endpoint: \"r:5040\"}]\n",
	} {
		if _, err := ParsePeer("adit.yaml", []byte(text), testKeys(t)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKinds(t *testing.T) {
	relay := "private_key_file: self.key\nlisten: \":5040\"\n" +
		"members: [{name: web, public_key: " + webKey.Public().String() + ", allowed_ips: [10.9.0.3/32]}]\n"
	peer := leastPeer + "relays: []\n"

	if _, err := ParsePeer("r.yaml", []byte(relay), testKeys(t)); err == nil ||
		err.Error() != "r.yaml:3: members: this is a relay's file (it has members): use adit relay" {
		t.Errorf("a peer from a relay's file: %v", err)
	}
	if _, err := ParseRelay("p.yaml", []byte(peer), testKeys(t)); err == nil ||
		err.Error() != "p.yaml:2: this is a peer's file (it has no members): use adit up" {
		t.Errorf("a relay from a peer's file: %v", err)
	}
	if _, err := ParseRelay("p.yaml", []byte(leastPeer), testKeys(t)); err == nil ||
		err.Error() != "p.yaml:2: members: missing: the peers that may use this relay" {
		t.Errorf("a relay without members: %v", err)
	}
	if f, err := Parse("r.yaml", []byte(relay), testKeys(t)); err != nil || f.Relay == nil || f.Peer != nil {
		t.Errorf("a relay's file: %+v, %v", f, err)
	}
	if f, err := Parse("p.yaml", []byte(peer), testKeys(t)); err != nil || f.Peer == nil || f.Relay != nil {
		t.Errorf("a peer's file: %+v, %v", f, err)
	}
}
