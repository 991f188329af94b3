package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/adit-overlay/adit/integration/internal/stage"
)

func main() { stage.Main("soak", command) }

// options are what the command line says.
type options struct {
	length   time.Duration
	blows    int // 0: as many as there is time for
	brisk    bool
	untimed  bool
	seed     uint64
	loopback bool
	json     string
	progress func(format string, args ...any)
}

// command is the whole program: where, what happened, the report.
func command(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	r, err := o.run(ctx)
	if err != nil {
		return err
	}
	r.write(os.Stdout)
	if o.json != "" {
		if err := stage.WriteJSON(o.json, r); err != nil {
			return err
		}
	}
	if n := len(r.Wrong); n > 0 {
		return fmt.Errorf("%d things went wrong, see above", n)
	}
	return nil
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("soak", flag.ContinueOnError)
	f.DurationVar(&o.length, "for", 30*time.Minute, "end after a `DURATION`")
	f.IntVar(&o.blows, "blows", 0, "end after `N` blows, if that is sooner")
	f.BoolVar(&o.brisk, "brisk", false, "deal short blows in quick succession, as in runs of less than a minute")
	f.BoolVar(&o.untimed, "untimed", false, "report how soon all recovers and judge no time, with less traffic: for a machine with other work")
	f.Uint64Var(&o.seed, "seed", rand.Uint64N(1e6), "deal the blows that follow from `N`")
	f.BoolVar(&o.loopback, "loopback", os.Geteuid() != 0, "all in one process, on loopback: without root there is nothing else")
	f.StringVar(&o.json, "json", "", "write the report to `FILE`, too")
	if err := f.Parse(args); err != nil {
		return nil, errors.Join(err, flag.ErrHelp)
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.length <= 0 {
		return nil, fmt.Errorf("-for %v: want a time to run", o.length)
	}
	o.progress = stage.Progress()
	return o, nil
}

// again is what to type to have the same dealt again.
func (o *options) again() string {
	line := fmt.Sprintf("go run ./integration/soak -for %v -seed %d", o.length, o.seed)
	if o.blows > 0 {
		line += fmt.Sprintf(" -blows %d", o.blows)
	}
	if o.brisk {
		line += " -brisk"
	}
	if o.untimed {
		line += " -untimed"
	}
	if o.loopback {
		line += " -loopback"
	}
	return line
}
