package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/config"
	"github.com/adit-overlay/adit/control"
	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/netstack"
	"github.com/adit-overlay/adit/peer"
	"github.com/adit-overlay/adit/relay"
	"github.com/adit-overlay/adit/socks"
	"github.com/adit-overlay/adit/underlay"
	"github.com/adit-overlay/adit/wire"
)

const statusPage = "../../docs/status.md"

// rowsOf returns the rows of the page's tables whose first cell begins with a name in backquotes: that name, and the second cell.
func rowsOf(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(statusPage)
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_.]+)` \\| ([^|]+) \\|(?: ([^|]*) \\|)?$").FindAllStringSubmatch(string(text), -1) {
		if _, twice := rows[m[1]]; twice {
			t.Errorf("two rows for %s", m[1])
		}
		rows[m[1]] = strings.TrimSpace(m[2])
	}
	return rows
}

// TestEveryCounterIsDocumented: each counter has a row with its meaning, as the command prints it, and what to do about those that
// count a loss; and each row is of a counter.
func TestEveryCounterIsDocumented(t *testing.T) {
	rows := rowsOf(t)
	text, _ := os.ReadFile(statusPage)
	for _, c := range counters() {
		if strings.HasPrefix(c.Path, "links.") {
			continue // said of underlay
		}
		if rows[c.Path] != c.Meaning {
			t.Errorf("%s: the page says %q, the command %q", c.Path, rows[c.Path], c.Meaning)
		}
		if c.Drop && strings.Contains(string(text), "| `"+c.Path+"` | "+c.Meaning+" |  |") {
			t.Errorf("%s: nothing is said of what to do", c.Path)
		}
		delete(rows, c.Path)
	}
	for path := range rows {
		if strings.Contains(path, ".") && path != "socks.address" {
			t.Errorf("a row for %s, which is no counter", path)
		}
	}
}

// TestFrontCountersAreThoseOfTheFronts compares the command's part of the table with what socks and control count.
func TestFrontCountersAreThoseOfTheFronts(t *testing.T) {
	var want, got []string
	for name, of := range map[string]reflect.Type{"socks": reflect.TypeFor[socks.Stats](), "control": reflect.TypeFor[control.Stats]()} {
		for i := range of.NumField() {
			want = append(want, name+"."+of.Field(i).Tag.Get("json"))
		}
	}
	for _, c := range frontCounters {
		got = append(got, c.Path)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("described are\n%q\ncounted are\n%q", got, want)
	}
}

// TestEveryFieldIsDocumented: the names in JSON stand in the page.
func TestEveryFieldIsDocumented(t *testing.T) {
	text, err := os.ReadFile(statusPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range []reflect.Type{
		reflect.TypeFor[status](), reflect.TypeFor[peer.Status](), reflect.TypeFor[engine.RemoteStatus](), reflect.TypeFor[engine.Traffic](), reflect.TypeFor[peer.Echo](),
	} {
		for i := range of.NumField() {
			f := of.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" && !f.Anonymous || !regexp.MustCompile("[`.\"]"+name+"[`\"]").Match(text) {
				t.Errorf("%v.%s: the page has no %q", of, f.Name, name)
			}
		}
	}
}

var statusTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func key(b byte) (k wire.PublicKey) { k[0] = b; return k }

func TestStatusOfAPeer(t *testing.T) {
	st := status{Kind: peerKind, Status: peer.Status{
		Name: "laptop", PublicKey: key(1), Started: statusTime.Add(-26 * time.Hour), Mode: config.ModeTUN, ModeReason: "it may",
		Interface: "adit0", MTU: 1400, MTUReason: "so", Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24")},
		UDPAddress: netip.MustParseAddrPort("[::]:5040"),
		Remotes: []engine.RemoteStatus{
			{PublicKey: key(2), Relay: true, Connected: true, Since: statusTime.Add(-90 * time.Second), LastReceived: statusTime.Add(-time.Second), Endpoint: netip.MustParseAddrPort("203.0.113.1:5040"), RoundTripTime: 11800 * time.Microsecond},
			{Name: "away", PublicKey: key(3), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.4/32")}},
			{Name: "link", PublicKey: key(4), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.5/32")}, Connected: true, Since: statusTime, LastReceived: statusTime},
			{Name: "web", PublicKey: key(5), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.9.0.3/32")}, Connected: true, Since: statusTime.Add(-65 * time.Minute), LastReceived: statusTime.Add(-2 * time.Second), Endpoint: netip.MustParseAddrPort("203.0.113.1:5040"), Via: "hub", Traffic: engine.Traffic{SentBytes: 999, ReceivedBytes: 1234567}},
		},
		Engine:   engine.Stats{Traffic: engine.Traffic{SentPackets: 12, SentBytes: 999, ReceivedPackets: 1000, ReceivedBytes: 1234567}, Drops: map[string]uint64{"replay": 7}},
		Underlay: &underlay.Stats{DatagramsSent: 9, Refused: 1, Drops: underlay.Drops{ReceiveBuffer: 3}},
		Links:    &underlay.Stats{Drops: underlay.Drops{QueueFull: 1 << 60}},
		Netstack: &netstack.Stats{Established: 2},
	}, Socks: &socksStatus{"127.0.0.1:1080", socks.Stats{Active: 2, Connected: 3, AuthFailed: 1}}}
	const want = `peer laptop, up 1d2h
  public key   AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
  mode         tun (it may)
  interface    adit0
  mtu          1400 (so)
  addresses    10.9.0.2/24
  udp          [::]:5040
  socks        127.0.0.1:1080 (clients now 2, connections made 3)
  sent         999 B in 12 packets
  received     1.2 MB in 1000 packets
  connections  2 of TCP

REMOTE             ADDRESSES    PATH                    SESSION  HEARD   ROUND TRIP  SENT   RECEIVED
AgAAAAAA… (relay)  -            203.0.113.1:5040        1m30s    1s ago  11.80 ms    0 B    0 B
link               10.9.0.5/32  link                    0s       0s ago  -           0 B    0 B
web                10.9.0.3/32  relay 203.0.113.1:5040  1h5m     2s ago  -           999 B  1.2 MB
and 1 without a session

DROPPED OR REFUSED             COUNT                EACH IS
underlay.drops.receive_buffer  3                    a datagram the kernel had no room for in the socket's buffer, of a member that is shed, or with a wrong checksum
engine.drops.replay            7                    data received before, or too old to tell
links.drops.queue_full         1152921504606846976  a datagram for a stream whose far end reads too slowly
socks.auth_failed              1                    a client without the right password
`
	wantPrint(t, &st, want)
}

func TestStatusOfARelay(t *testing.T) {
	st := status{Kind: relayKind, Status: peer.Status{
		PublicKey: key(1), Started: statusTime.Add(-time.Minute), UDPAddress: netip.MustParseAddrPort("192.0.2.1:5040"),
		Remotes: []engine.RemoteStatus{{Name: "web"}, {Name: "laptop"}},
		Relay:   &relay.Stats{Members: 2, Circuits: 1, Datagrams: 5, Bytes: 999_950, Shed: 1, Drops: map[string]uint64{"moved": 1}},
	}}
	wantPrint(t, &st, `relay, up 1m
  public key  AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
  udp         192.0.2.1:5040
  members     0 of 2 online
  circuits    1
  forwarded   1.0 MB in 5 datagrams
  shed        1 far beyond their limit

no session with any of 2 remotes

DROPPED OR REFUSED  COUNT  EACH IS
relay.drops.moved   1      a datagram that did not come from where its sender is known to be
`)
}

func wantPrint(t *testing.T, st *status, want string) {
	t.Helper()
	var out bytes.Buffer
	if err := st.print(&out, statusTime); err != nil {
		t.Fatal(err)
	}
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// TestPinger has answers that come and do not, and what is made of them. An echo takes its time.
func TestPinger(t *testing.T) {
	at := netip.MustParseAddrPort("203.0.113.1:5040")
	web := peer.Echo{Address: netip.MustParseAddr("10.9.0.3"), Name: "web", Endpoint: at, Time: 2 * time.Millisecond}
	byRelay := web
	byRelay.Via, byRelay.Time = "hub", 40*time.Millisecond
	type reply struct {
		echo peer.Echo
		err  error
		took time.Duration
	}
	for _, c := range []struct {
		name    string
		replies []reply
		out     string
		err     string
		took    time.Duration
	}{
		{"answers", []reply{{echo: byRelay}, {echo: web}}, `answer from web (10.9.0.3): seq=1 time=40.00 ms path=relay 203.0.113.1:5040
answer from web (10.9.0.3): seq=2 time=2.00 ms path=203.0.113.1:5040
2 sent, 2 answered, 0% lost; least 2.00 ms, mean 21.00 ms, most 40.00 ms
`, "", time.Second},
		{"one lost", []reply{{err: &control.Error{Code: http.StatusGatewayTimeout}, took: 5 * time.Second}, {echo: web}, {err: &control.Error{Code: http.StatusBadGateway, Msg: "no way"}}},
			`no answer within 5s: seq=1
answer from web (10.9.0.3): seq=2 time=2.00 ms path=203.0.113.1:5040
no way: seq=3
3 sent, 1 answered, 66% lost; least 2.00 ms, mean 2.00 ms, most 2.00 ms
`, "", 6 * time.Second},
		{"none", []reply{{err: &control.Error{Code: http.StatusGatewayTimeout}}}, "no answer within 5s: seq=1\n1 sent, 0 answered, 100% lost\n", "no answer from web.adit", 0},
		{"nobody of that name", []reply{{err: &control.Error{Code: http.StatusNotFound, Msg: "no such member"}}, {}}, "", "no such member", 0},
		{"gone in between", []reply{{echo: web}, {err: errors.New("EOF")}, {}}, `answer from web (10.9.0.3): seq=1 time=2.00 ms path=203.0.113.1:5040
1 sent, 1 answered, 0% lost; least 2.00 ms, mean 2.00 ms, most 2.00 ms
`, "EOF", time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				p := pinger{host: "web.adit", count: uint(len(c.replies)), interval: time.Second, timeout: 5 * time.Second, out: &out}
				p.echo = func(context.Context) (peer.Echo, error) {
					r := c.replies[0]
					c.replies = c.replies[1:]
					time.Sleep(r.took)
					return r.echo, r.err
				}
				start := time.Now()
				said := ""
				if err := p.run(t.Context()); err != nil {
					said = err.Error()
				}
				if said != c.err {
					t.Errorf("error %q, want %q", said, c.err)
				}
				if out.String() != c.out {
					t.Errorf("got\n%swant\n%s", out.String(), c.out)
				}
				if took := time.Since(start); took != c.took {
					t.Errorf("it took %v, want %v", took, c.took)
				}
			})
		})
	}
}

// TestInterruptedPingerSums up what there was, though it would go on for ever.
func TestInterruptedPingerSumsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		time.AfterFunc(2500*time.Millisecond, interrupt)
		var out bytes.Buffer
		p := pinger{host: "web.adit", interval: time.Second, timeout: 5 * time.Second, out: &out, echo: func(context.Context) (peer.Echo, error) {
			return peer.Echo{Time: time.Millisecond}, nil
		}}
		if err := p.run(ctx); err != nil || !strings.Contains(out.String(), "3 sent, 3 answered") {
			t.Errorf("%v\n%s", err, out.String())
		}
	})
}
