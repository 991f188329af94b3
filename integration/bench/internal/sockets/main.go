// Sockets is an end of the load on the kernel's sockets: what a program beside a tunnel sees.
//
//	sockets -control FILE [-socks 127.0.0.1:1080] [-congestion cubic]
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/adit-overlay/adit/integration/bench/load"
)

func main() {
	control := flag.String("control", "", "be told what to do at the Unix socket `FILE`")
	proxy := flag.String("socks", "", "dial through the SOCKS5 proxy at `ADDR`")
	congestion := flag.String("congestion", "", "`NAME` of the congestion control of TCP; empty: the system's default")
	flag.Parse()
	var n load.Network = load.Kernel{Congestion: *congestion}
	if *proxy != "" {
		n = load.Socks{Proxy: *proxy}
	}
	if err := load.RunAgent(*control, n, nil); err != nil {
		fmt.Fprintln(os.Stderr, "sockets:", err)
		os.Exit(1)
	}
}
