// Package heaptest tells tests how much memory is in use.
package heaptest

import "runtime"

// InUse returns the bytes of all that can still be reached, and of goroutines' stacks. Differences between two calls
// are what came to be between them.
func InUse() int {
	runtime.GC()
	runtime.GC() // what pools keep over the first goes in the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}
