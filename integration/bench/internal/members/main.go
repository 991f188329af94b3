// Members are members of a relay that speak the protocol by hand, to load the relay and nothing else.
//
//	members attach -relay ADDR -count N              makes N sessions, one member each
//	members sink   -relay ADDR -member B -from A …   counts what comes by a circuit
//	members source -relay ADDR -member A -to B …     opens the circuit and sends
//
// What they saw is one line of JSON, the last they write.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"time"
)

// options are the flags, of all commands together.
type options struct {
	relay            netip.AddrPort
	member, from, to int
	count            int
	size             int
	rate             int
	duration         time.Duration
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "members:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	commands := map[string]func(options) (any, error){"attach": attach, "sink": sink, "source": source}
	if len(args) == 0 || commands[args[0]] == nil {
		return fmt.Errorf("want one of attach, sink, source")
	}
	var o options
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	f.TextVar(&o.relay, "relay", netip.AddrPort{}, "where the relay is")
	f.IntVar(&o.member, "member", 0, "who to be")
	f.IntVar(&o.from, "from", 0, "whose circuit to wait for")
	f.IntVar(&o.to, "to", 0, "to whom to open a circuit")
	f.IntVar(&o.count, "count", 0, "how many members to be")
	f.IntVar(&o.size, "size", 0, "bytes of overlay packet")
	f.IntVar(&o.rate, "rate", 0, "bytes to send a second; 0: as many as there can be")
	f.DurationVar(&o.duration, "for", time.Second, "how long to send")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	result, err := commands[args[0]](o)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}
