//go:build linux

package main

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/adit-overlay/adit/integration/internal/stage"
	"github.com/adit-overlay/adit/integration/lab"
)

// traced has a Go program write a line for each collection of garbage, by which what it allocates is seen.
const traced = "GODEBUG=gctrace=1"

// collection is such a line: what there was when a collection began, when it ended, and what
// was in use, in MB.
var collection = regexp.MustCompile(`(?m)^gc \d+ .* (\d+)->(\d+)->(\d+) MB, (\d+) MB goal`)

// collections is how many there have been.
func collections(p *lab.Process) int { return len(collection.FindAllString(p.Output(), -1)) }

// allocated is no less than what p has allocated since there had been so many collections, in bytes: what collections
// have found new, and what the next would be due for.
func allocated(p *lab.Process, since int) (bytes int) {
	const mb = 1 << 20
	live, goal := 0, 4
	for i, m := range collection.FindAllStringSubmatch(p.Output(), -1) {
		var n [4]int
		for k := range n {
			n[k], _ = strconv.Atoi(m[k+1]) // digits
		}
		if i >= since {
			bytes += (n[0] - live) * mb
		}
		live, goal = n[2], max(4, 2*n[2])
	}
	return bytes + (goal-live)*mb
}

// logged is how many lines a process has logged, without what it says of collections.
func logged(p *lab.Process) int { return strings.Count(p.Output(), "\n") - collections(p) }

// resident is the memory of a process, in bytes.
func (f *field) resident(p *lab.Process) float64 {
	n, err := stage.Memory(stage.ResidentNow, p)
	if err != nil {
		f.s.Fatalf("%v", err)
	}
	return n
}

// warm waits until a process under attack has all the memory it takes for its work: a heap grows over the first
// collections of garbage, whatever the work. One that grows for ever is not waited for.
func (f *field) warm(p *lab.Process) {
	const still = 4 // collections over which nothing was added
	highest, since := f.resident(p), collections(p)
	for end := time.Now().Add(pick(f.s, 30*time.Second, 0)); time.Now().Before(end) && collections(p) < since+still; {
		f.s.sleep(50 * time.Millisecond)
		if r := f.resident(p); r > highest*1.01 {
			highest, since = r, collections(p)
		}
	}
}
