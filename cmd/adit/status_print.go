package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/adit-overlay/adit/peer"
)

// print writes the status for people, as seen at now.
func (st *status) print(w io.Writer, now time.Time) error {
	if err := st.printSelf(w, now); err != nil {
		return err
	}
	if err := st.printRemotes(w, now); err != nil {
		return err
	}
	return st.printDrops(w)
}

func (st *status) printSelf(w io.Writer, now time.Time) error {
	title := st.Kind
	if st.Name != "" {
		title += " " + st.Name
	}
	s := newSummary(w, "%s, up %s", title, age(now.Sub(st.Started)))
	s.row("public key", st.PublicKey.String())
	if st.Mode != "" {
		s.row("mode", because(string(st.Mode), st.ModeReason))
	}
	if st.Interface != "" {
		s.row("interface", st.Interface)
	}
	if st.MTU != 0 {
		s.row("mtu", because(strconv.Itoa(st.MTU), st.MTUReason))
	}
	if len(st.Addresses) > 0 {
		s.row("addresses", prefixes(st.Addresses))
	}
	if st.UDPAddress.IsValid() {
		s.row("udp", st.UDPAddress.String())
	}
	if p := st.Socks; p != nil {
		s.row("socks", fmt.Sprintf("%s (clients now %d, connections made %d)", p.Address, p.Active, p.Stats.Connected))
	}
	if r := st.Relay; r != nil {
		s.row("members", fmt.Sprintf("%d of %d online", r.Online, r.Members))
		s.row("circuits", fmt.Sprint(r.Circuits))
		s.row("forwarded", fmt.Sprintf("%s in %d datagrams", size(r.Bytes), r.Datagrams))
		if r.Shed > 0 {
			s.row("shed", fmt.Sprintf("%d far beyond their limit", r.Shed))
		}
	}
	if t := st.Engine.Traffic; st.Mode != "" {
		s.row("sent", fmt.Sprintf("%s in %d packets", size(t.SentBytes), t.SentPackets))
		s.row("received", fmt.Sprintf("%s in %d packets", size(t.ReceivedBytes), t.ReceivedPackets))
	}
	if n := st.Netstack; n != nil {
		s.row("connections", fmt.Sprintf("%d of TCP", n.Established))
	}
	return s.Flush()
}

func because(what, why string) string {
	if why == "" {
		return what
	}
	return fmt.Sprintf("%s (%s)", what, why)
}

// printRemotes has a row for each remote there is a session with, and says how many others there are.
func (st *status) printRemotes(w io.Writer, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	heading, others := "\nREMOTE\tADDRESSES\tPATH\tSESSION\tHEARD\tROUND TRIP\tSENT\tRECEIVED", 0
	for _, r := range st.Remotes {
		if !r.Connected {
			others++
			continue
		}
		if heading != "" {
			fmt.Fprintln(table, heading)
			heading = ""
		}
		name := r.Name
		if name == "" {
			name = r.PublicKey.String()[:8] + "…"
		}
		if r.Relay {
			name += " (relay)"
		}
		addresses := "-"
		if len(r.AllowedIPs) > 0 {
			addresses = prefixes(r.AllowedIPs)
		}
		trip := "-"
		if r.RoundTripTime > 0 {
			trip = milliseconds(r.RoundTripTime)
		}
		fmt.Fprintln(table, strings.Join([]string{
			name, addresses, pathOf(r.Endpoint, r.Via), age(now.Sub(r.Since)), age(now.Sub(r.LastReceived)) + " ago", trip,
			size(r.Traffic.SentBytes), size(r.Traffic.ReceivedBytes),
		}, "\t"))
	}
	switch {
	case others > 0 && heading == "":
		fmt.Fprintf(table, "and %d without a session\n", others)
	case others > 0:
		fmt.Fprintf(table, "\nno session with any of %d remotes\n", others)
	}
	return table.Flush()
}

// pathOf names a path: direct, by a relay, or by a link, which has no address.
func pathOf(endpoint netip.AddrPort, via string) string {
	switch {
	case via != "" && endpoint.IsValid():
		return "relay " + endpoint.String()
	case via != "":
		return "relay " + via
	case endpoint.IsValid():
		return endpoint.String()
	}
	return "link"
}

// printDrops lists what was dropped, by the names of docs/status.md.
func (st *status) printDrops(w io.Writer) error {
	counts, err := st.counts()
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	heading := "\nDROPPED OR REFUSED\tCOUNT\tEACH IS"
	for _, c := range counters() {
		n := counts(c.Path)
		if !c.Drop || n == 0 {
			continue
		}
		if heading != "" {
			fmt.Fprintln(table, heading)
			heading = ""
		}
		fmt.Fprintf(table, "%s\t%d\t%s\n", c.Path, n, c.Meaning)
	}
	if heading != "" {
		fmt.Fprintln(table, "\nnothing dropped or refused")
	}
	return table.Flush()
}

// counts returns a function from the path of a counter to its value, 0 where the status does not have it.
func (st *status) counts() (func(path string) uint64, error) {
	b, err := json.Marshal(st)
	if err != nil {
		return nil, err
	}
	var root map[string]any
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	if err := d.Decode(&root); err != nil {
		return nil, err
	}
	return func(path string) uint64 {
		var at any = root
		for name := range strings.SplitSeq(path, ".") {
			in, _ := at.(map[string]any)
			at = in[name]
		}
		text, _ := at.(json.Number)
		n, _ := strconv.ParseUint(text.String(), 10, 64)
		return n
	}, nil
}

// counters are those of a peer or relay, and of what the command puts before it.
func counters() []peer.Counter { return append(peer.Counters(), frontCounters...) }

var frontCounters = []peer.Counter{
	{Path: "socks.active", Meaning: "a client connected, now"},
	{Path: "socks.accepted", Meaning: "a client, those refused included"},
	{Path: "socks.over_max_conns", Drop: true, Meaning: "a client beyond those there may be at a time"},
	{Path: "socks.over_max_per_client", Drop: true, Meaning: "a client beyond those there may be of one address at a time"},
	{Path: "socks.unknown_protocol", Drop: true, Meaning: "a client that speaks neither SOCKS5 nor HTTP"},
	{Path: "socks.handshake_timeout", Drop: true, Meaning: "a client that did not say in time what it wants"},
	{Path: "socks.handshake_broken", Drop: true, Meaning: "a client that left before it had said what it wants"},
	{Path: "socks.malformed", Drop: true, Meaning: "a request that is none, or none for a proxy"},
	{Path: "socks.auth_failed", Drop: true, Meaning: "a client without the right password"},
	{Path: "socks.unsupported", Drop: true, Meaning: "a SOCKS5 command or address type that is not served"},
	{Path: "socks.denied", Drop: true, Meaning: "a destination that is not allowed"},
	{Path: "socks.too_many_dials", Drop: true, Meaning: "a dial beyond those that may be in progress to one host"},
	{Path: "socks.connected", Meaning: "a connection made"},
	{Path: "socks.dial_refused", Drop: true, Meaning: "a connection refused: nobody listens there"},
	{Path: "socks.dial_timed_out", Drop: true, Meaning: "a connection not answered in time"},
	{Path: "socks.dial_host_unreachable", Drop: true, Meaning: "a connection to a member that is not there, or a name nobody has"},
	{Path: "socks.dial_net_unreachable", Drop: true, Meaning: "a connection to an address nobody has"},
	{Path: "socks.dial_not_allowed", Drop: true, Meaning: "a connection the system or a rule forbids"},
	{Path: "socks.dial_other", Drop: true, Meaning: "a connection that failed otherwise"},
	{Path: "socks.broken", Drop: true, Meaning: "a connection ended by an error on one side"},
	{Path: "socks.idle", Drop: true, Meaning: "a connection ended as nothing moved for long"},
	{Path: "socks.bytes_to_target", Meaning: "a byte carried to a destination by SOCKS5 or CONNECT"},
	{Path: "socks.bytes_to_client", Meaning: "a byte carried back"},
	{Path: "socks.http_requests", Meaning: "an HTTP request, CONNECT included"},

	{Path: "control.connections", Meaning: "a connection to the control socket"},
	{Path: "control.requests", Meaning: "a request served there"},
	{Path: "control.refused_users", Drop: true, Meaning: "a connection of another user"},
	{Path: "control.refused_requests", Drop: true, Meaning: "a request with a foreign Host or an Origin, or not in the API"},
	{Path: "control.over_limit", Drop: true, Meaning: "a connection beyond those there may be at a time"},
}

// age writes how long something has been, as exactly as people want to know.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return d.Truncate(time.Second).String()
	case d < 24*time.Hour:
		return short(d.Truncate(time.Second))
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// size writes a number of bytes in decimal units.
func size(n uint64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	units := []string{"kB", "MB", "GB", "TB"}
	f := float64(n) / 1000
	for f >= 999.95 && len(units) > 1 {
		f, units = f/1000, units[1:]
	}
	return fmt.Sprintf("%.1f %s", f, units[0])
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}
