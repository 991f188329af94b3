package main

import (
	"os"
	"runtime/debug"
)

// spareMemory gives back what the start took and keeps garbage few. To read a file of many members takes several times what is
// kept of it. After that only control allocates, so that to collect twice as often costs a relay nearly nothing.
//
// Whoever sets GOGC has decided for himself.
func spareMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	debug.FreeOSMemory()
}
