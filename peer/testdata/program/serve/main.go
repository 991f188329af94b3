// Serve answers HTTP requests on the overlay, as the peer that the file named by its argument describes.
// It prints its UDP address, and ends with its standard input.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

	"github.com/adit-overlay/adit/peer"
)

func main() {
	p, err := peer.Open(context.Background(), os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	l, err := p.Listen("tcp", ":80")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(p.Status().UDPAddress)
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello, %s", r.RemoteAddr)
	}))
	io.Copy(io.Discard, os.Stdin)
	if err := p.Close(); err != nil {
		log.Fatal(err)
	}
}
