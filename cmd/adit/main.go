// Command adit is a peer or a relay of an adit overlay network, and what one needs to run
// either.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
