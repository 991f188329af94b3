// Package heaptest tells tests how much memory is in use.
package heaptest

import "runtime"

// InUse returns the bytes of all that can still be reached, and of goroutines' stacks. Differences between two calls
// are what came to be between them, and room that the runtime keeps for the next goroutines: half a megabyte and more
// where hundreds have ended. Whoever asks what is left when all is over asks Reachable.
func InUse() int {
	runtime.GC()
	runtime.GC() // what pools keep over the first goes in the second
	m := stats()
	return int(m.HeapAlloc + m.StackInuse)
}

// Reachable returns the bytes of all that can still be reached. Of goroutines it knows nothing: they are to be counted.
func Reachable() int {
	// What has a finalizer or a cleanup goes in the collection after that has run, which is when the runtime comes to it.
	const idle = 3
	least := ^uint64(0)
	for freedNothing := 0; freedNothing < idle; {
		runtime.GC()
		runtime.Gosched()
		if now := stats().HeapAlloc; now < least {
			least, freedNothing = now, 0
		} else {
			freedNothing++
		}
	}
	return int(least)
}

func stats() (m runtime.MemStats) {
	runtime.ReadMemStats(&m)
	return m
}
