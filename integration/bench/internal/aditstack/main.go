// Aditstack is an end of the load inside a peer: what a program sees that has a peer in it. All it
// costs is the cost of one process.
//
//	aditstack -control FILE -c adit.yaml [-join 'member%d.yaml']
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/adit-overlay/adit/integration/bench/load"
	"github.com/adit-overlay/adit/peer"
)

func main() {
	control := flag.String("control", "", "be told what to do at the Unix socket `FILE`")
	path := flag.String("c", "", "the peer's configuration `FILE`")
	join := flag.String("join", "", "configurations of the members as which to dial cold: a `FORMAT` of their number")
	flag.Parse()
	if err := run(*control, *path, *join); err != nil {
		fmt.Fprintln(os.Stderr, "aditstack:", err)
		os.Exit(1)
	}
}

func run(control, path, members string) error {
	ctx := context.Background()
	p, err := peer.Open(ctx, path)
	if err != nil {
		return err
	}
	defer p.Close()
	var join load.Join
	if members != "" {
		join = func(ctx context.Context, member int) (load.Member, error) {
			return peer.Open(ctx, fmt.Sprintf(members, member))
		}
	}
	return load.RunAgent(control, p, join)
}
