//go:build linux

// Attacker is who attacks, as a process of its own.
//
//	attacker flood -kind KIND -victim N -from PREFIX -rate N [-count N]   sends from forged sources
//	attacker prove -victim N -from PREFIX -rate N                         sends from its own addresses, and answers cookies
//	attacker replay …                                                     sends again what went by
//
// It says "ready" when it could begin, does what its standard input says line by line, and ends with it. What it
// did is one line of JSON, the last it writes. Lines say where to send to from then on; an empty one is a pause.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
)

// options are the flags, of all commands together.
type options struct {
	kind   string
	victim int
	from   netip.Prefix
	rate   int
	count  int
	index  uint64
	times  int
	other  netip.Addr
}

// commands do what they are told by lines, and return what is to be said of it.
var commands = map[string]func(o options, lines <-chan string) (any, error){"flood": flood, "prove": prove, "replay": replay}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "attacker:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 || commands[args[0]] == nil {
		return fmt.Errorf("want one of %v", names())
	}
	var o options
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	f.StringVar(&o.kind, "kind", "", "what to send")
	f.IntVar(&o.victim, "victim", 0, "whose public key the messages are made for: a number of the roster")
	f.TextVar(&o.from, "from", netip.Prefix{}, "where forged sources are taken from")
	f.IntVar(&o.rate, "rate", 0, "datagrams a second; 0: as many as there can be")
	f.IntVar(&o.count, "count", 0, "how many datagrams in all; 0: no end")
	f.Uint64Var(&o.index, "index", 0, "a receiver index of the victim's, for data under a wrong key")
	f.IntVar(&o.times, "times", 1, "how often to send again what was seen")
	f.TextVar(&o.other, "other", netip.Addr{}, "from where to send it also")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	result, err := commands[args[0]](o, lines())
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func names() (all []string) {
	for name := range commands {
		all = append(all, name)
	}
	return all
}

// lines are those of standard input.
func lines() <-chan string {
	c := make(chan string)
	go func() {
		defer close(c)
		for s := bufio.NewScanner(os.Stdin); s.Scan(); {
			c <- s.Text()
		}
	}()
	return c
}
