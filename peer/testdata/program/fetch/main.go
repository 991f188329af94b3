// Fetch prints the answer to an HTTP request, which it sends through the default peer: the one that
// $ADIT_CONFIG describes.
package main

import (
	"io"
	"log"
	"net/http"
	"os"

	"github.com/adit-overlay/adit/peer"
)

func main() {
	client := &http.Client{Transport: &http.Transport{DialContext: peer.DialContext}}
	resp, err := client.Get(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
		log.Fatal(err)
	}
}
