// Inside is a host that crowds are let in to: it serves many connections with little memory for each.
//
//	port 7    sends back what it gets
//	port 19   sends without end
//	port 20   says how many connections the other two have, and closes
package main

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "inside:", err)
		os.Exit(1)
	}
}

var conns atomic.Int32

func run() error {
	failed := make(chan error)
	for port, serve := range map[string]func(net.Conn){
		"7":  counted(giveBack),
		"19": counted(flow),
		"20": func(c net.Conn) { fmt.Fprint(c, conns.Load()) },
	} {
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		go func() { failed <- accept(l, serve) }()
	}
	fmt.Println("ready")
	return <-failed
}

func accept(l net.Listener, serve func(net.Conn)) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			serve(c)
		}()
	}
}

func counted(serve func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		conns.Add(1)
		defer conns.Add(-1)
		serve(c)
	}
}

const piece = 4 << 10

func giveBack(c net.Conn) {
	b := make([]byte, piece)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
	}
}

func flow(c net.Conn) {
	b := make([]byte, piece)
	for {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}
