//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "siege: network namespaces are to be had on Linux only")
	os.Exit(1)
}
