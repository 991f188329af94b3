package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/adit-overlay/adit/integration/internal/stage"
	"github.com/adit-overlay/adit/integration/internal/strain"
	"github.com/adit-overlay/adit/integration/soak/traffic"
)

// report is everything a soak has found. It is what -json writes.
type report struct {
	Again    string // what to type to have the same dealt again
	Seed     uint64
	Ground   string
	Lasted   time.Duration
	Counts   traffic.Counts
	Keys     uint64
	Untimed  bool              // no time is judged
	Excused  int               // connections lost, or not ended in order, because an end died
	Late     []traffic.Finding // failed for want of an answer in time while the machine was busy
	Outcomes []outcome
	Lost     []traffic.Finding // datagrams, in calm
	Strain   strain.Reading    // of the machine; where it was strained, no loss is judged
	Lives    []*life
	Idle     map[string]int // goroutines of processes at their end
	Wrong    []string
}

// mayLose is the share of datagrams that may be lost in calm: the machine may be busy, and then sockets' buffers are full.
const mayLose = 0.001

func (s *soak) report(lasted time.Duration, idle map[string]int) *report {
	r := &report{
		Again: s.again(), Seed: s.seed, Ground: s.ground.name, Lasted: lasted.Round(time.Second),
		Outcomes: s.dealt, Lives: s.sampler.all(), Idle: idle, Wrong: s.wrong, Strain: s.clock.Whole(),
		Untimed: s.untimed,
	}
	r.Counts, r.Keys = s.company.counts()
	r.Lost = s.company.lost()
	r.Excused = len(s.company.with(itsEnd))
	r.Late = s.company.with(machine)
	for _, f := range s.company.inexcusable() {
		text := f.String()
		for _, g := range s.company.beside(f) {
			text += "\n" + g.String()
		}
		r.Wrong = append(r.Wrong, text+r.since(f.At))
	}
	for _, o := range r.Outcomes {
		for _, m := range o.Missed {
			r.Wrong = append(r.Wrong, fmt.Sprintf("late: %s, %s, %.1f s: not back within %v: %s", o.Kind, o.Whom, o.Lasted.Seconds(), o.Bound, m))
		}
	}
	for _, l := range r.Lives {
		for _, leak := range l.leaks() {
			r.Wrong = append(r.Wrong, "leak: "+leak)
		}
	}
	for name, n := range idle {
		if n > mostIdle {
			r.Wrong = append(r.Wrong, fmt.Sprintf("leak: %s had %d goroutines when its traffic had ended, want at most %d", name, n, mostIdle))
		}
	}
	if c := r.Counts; !r.Untimed && !r.Strain.Strained() && float64(c.CalmLost) > mayLose*float64(c.Calm)+5 {
		r.Wrong = append(r.Wrong, fmt.Sprintf("lost: %d of %d datagrams that were sent while nothing was dealt", c.CalmLost, c.Calm))
	}
	return r
}

// judgement says which times were.
func (r *report) judgement() string {
	late := fmt.Sprintf("%d connections and requests had no answer in time then", len(r.Late))
	if r.Untimed {
		return "none is judged (-untimed); " + late
	}
	busy := 0
	for _, o := range r.Outcomes {
		if !o.Judged {
			busy++
		}
	}
	return fmt.Sprintf("judged after %d of %d blows, the machine being too busy to say for the others; %s", len(r.Outcomes)-busy, len(r.Outcomes), late)
}

// maxShown bounds how much of what was wrong, and of what was lost, is printed.
const maxShown = 50

// write prints the report as Markdown.
func (r *report) write(w io.Writer) {
	verdict := "all of it held"
	if n := len(r.Wrong); n > 0 {
		verdict = fmt.Sprintf("%d things went wrong", n)
	}
	fmt.Fprintf(w, "# Soak: %s\n\n", verdict)
	c := r.Counts
	rows(w, []string{"", ""}, [][]string{
		{"duration", r.Lasted.String()},
		{"seed", fmt.Sprintf("%d (`%s`)", r.Seed, r.Again)},
		{"ground", r.Ground},
		{"TCP streams", fmt.Sprintf("%d, %.1f MB checked; %d lost an end; of the others none stood still for more than %s", c.Streams, float64(c.StreamBytes)/1e6, r.Excused, seconds(c.Stood))},
		{"requests answered", fmt.Sprintf("%d, %.1f MB checked", c.Requests, float64(c.RequestBytes)/1e6)},
		{"processes waited for a processor", fmt.Sprintf("%.1f %% of the time, and there were too few %.0f %% of it (no loss is judged beyond %.0f and %.0f %%)",
			100*r.Strain.Share, 100*r.Strain.Crowd, 100*strain.Share, 100*strain.Crowd)},
		{"times", r.judgement()},
		{"datagrams", fmt.Sprintf("%d sent, %d back, each checked; of %d in calm %d lost", c.Datagrams, c.Returned, c.Calm, c.CalmLost)},
		{"pings", fmt.Sprintf("%d sent, %d answered", c.Pings, c.Answered)},
		{"keys agreed", fmt.Sprintf("%d, as those members know that tell", r.Keys)},
	})
	r.writeOutcomes(w)
	r.writeLives(w)
	var lost []string
	for _, f := range r.Lost {
		lost = append(lost, f.String()+r.since(f.Began)) // it was sent then, and found to be lost when its number came round again
	}
	list(w, "Datagrams lost in calm", lost)
	list(w, "Wrong", r.Wrong)
}

// since says what the last blow before that was.
func (r *report) since(at time.Time) string {
	said := ""
	for _, o := range r.Outcomes {
		if !o.Over.After(at) {
			said = fmt.Sprintf("; %.1f s after: %s, %s", at.Sub(o.Over).Seconds(), o.Kind, o.Whom)
		}
	}
	return said
}

func list(w io.Writer, title string, all []string) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(w, "\n## %s\n\n", title)
	for _, text := range all[:min(len(all), maxShown)] {
		fmt.Fprintf(w, "- %s\n", strings.ReplaceAll(text, "\n", "\n  "))
	}
	if more := len(all) - maxShown; more > 0 {
		fmt.Fprintf(w, "- and %d more\n", more)
	}
}

func (r *report) writeOutcomes(w io.Writer) {
	fmt.Fprint(w, "\n## Blows, and how soon all traffic was back\n\n")
	var kinds []string
	for _, o := range r.Outcomes {
		if !slices.Contains(kinds, o.Kind) {
			kinds = append(kinds, o.Kind)
		}
	}
	slices.Sort(kinds)
	var lines [][]string
	for _, k := range kinds {
		var back, moved []time.Duration
		late, missed, stuck, notJudged := 0, 0, 0, 0
		for _, o := range r.Outcomes {
			if o.Kind != k {
				continue
			}
			back, moved = append(back, o.Recovery), append(moved, o.Streams)
			missed += len(o.Missed)
			stuck += o.StreamsStuck
			if len(o.Missed) > 0 {
				late++
			}
			if !o.Judged {
				notJudged++
			}
		}
		lines = append(lines, []string{
			k, fmt.Sprint(len(back)), seconds(median(back)), seconds(slices.Max(back)), fmt.Sprint(late), fmt.Sprint(missed),
			seconds(median(moved)), seconds(slices.Max(moved)), fmt.Sprint(stuck), fmt.Sprint(notJudged),
		})
	}
	unjudged := "machine too busy to say"
	if r.Untimed {
		unjudged = "not judged"
	}
	rows(w, []string{"blow", "times", "back, p50", "max", "late", "ways late", "streams move, p50", "max", "not yet at the next blow", unjudged}, lines)
}

// writeLives shows the longest life of each process, of those that could be judged if there are any.
func (r *report) writeLives(w io.Writer) {
	fmt.Fprint(w, "\n## Processes: the longest life of each, the least it held early in it → late, in the same company\n\n")
	var lines [][]string
	shown := make(map[string]bool)
	for _, l := range r.Lives {
		if shown[l.Name] {
			continue
		}
		shown[l.Name] = true
		lives := 0
		trends, ok := l.trends()
		for _, other := range r.Lives {
			if other.Name != l.Name {
				continue
			}
			lives++
			if !ok {
				if trends, ok = other.trends(); ok {
					l = other
				}
			}
		}
		line := []string{l.Name, fmt.Sprint(lives), l.lasted().String()}
		for _, x := range resources {
			t, has := trends[x.name]
			switch {
			case x.name == goroutines && !has && r.Idle[l.Name] > 0:
				line = append(line, fmt.Sprintf("%d at its end", r.Idle[l.Name]))
			case !ok:
				line = append(line, "not judged")
			case !has:
				line = append(line, "–")
			default:
				line = append(line, fmt.Sprintf("%.1f → %.1f", t.First, t.Last))
			}
		}
		lines = append(lines, line)
	}
	head := []string{"process", "lives", "lasted"}
	for _, x := range resources {
		head = append(head, x.name)
	}
	rows(w, head, lines)
}

func rows(w io.Writer, head []string, lines [][]string) {
	stage.Table{Lines: slices.Concat([][]string{head}, lines)}.WriteMarkdown(w)
}

func median(all []time.Duration) time.Duration {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
