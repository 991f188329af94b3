package main

import (
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// What stands on a command line stands in ps, and in the history of a shell: no flag takes a secret, and no command
// an argument that is one.
func TestNoFlagTakesASecret(t *testing.T) {
	secret := regexp.MustCompile(`(?i)pass|secret|psk|pre-?shared|private|token`)
	root := rootCommand(&env{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard})
	var look func(*cobra.Command)
	look = func(c *cobra.Command) {
		see := func(f *pflag.Flag) {
			if secret.MatchString(f.Name) {
				t.Errorf("%s: --%s takes a secret", c.CommandPath(), f.Name)
			}
		}
		c.Flags().VisitAll(see)
		c.PersistentFlags().VisitAll(see)
		for _, sub := range c.Commands() {
			look(sub)
		}
	}
	look(root)
	const key = "ERERERERERERERERERERERERERERERERERERERERERE="
	for _, args := range [][]string{{"pubkey", key}, {"up", "-c", key}, {"check", "-c", key}, {"relay", "-c", key}} {
		if code, _, _ := command(t, args...); code == 0 {
			t.Errorf("%s took a key for a file", args[0])
		}
	}
}
