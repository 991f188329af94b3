// Package citest has the one rule on what may be skipped: anything, where a machine cannot run it, but nothing in CI.
package citest

import "os"

// T is what Skipf needs of a testing.TB.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Skipf ends a test that cannot run here, and says why. Where CI is set the test fails: CI must be able to run all.
func Skipf(t T, why string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("must run where CI is set, but cannot: "+why, args...)
	}
	t.Skipf(why, args...)
}
