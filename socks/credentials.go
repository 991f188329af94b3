package socks

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
)

// Format leaves the password out, whatever the verb.
func (s *Server) Format(f fmt.State, _ rune) { io.WriteString(f, "socks.Server") }

// authorized compares in a time that tells nothing of how much was right, nor
// of the lengths: hashes are compared, and both always.
func (s *Server) authorized(username, password string) bool {
	name := equalSecret(username, s.Username)
	word := equalSecret(password, s.Password)
	return name&word == 1
}

func equalSecret(got, want string) int {
	g, w := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(g[:], w[:])
}
