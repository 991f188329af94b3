package main

import (
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-overlay/adit/integration/internal/strain"
	"github.com/adit-overlay/adit/integration/soak/traffic"
)

// lived is a life of so many seconds in which a resource was held(second).
func lived(seconds int, resource string, held func(second int) float64) *life {
	l := &life{Name: "web"}
	for s := range seconds {
		l.Samples = append(l.Samples, sample{At: time.Duration(s) * time.Second, Company: 7, Held: map[string]float64{resource: held(s)}})
	}
	return l
}

func TestLeakIsNoticed(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	noise := func(n float64) float64 { return n * r.Float64() }
	for _, c := range []struct {
		name     string
		resource string
		seconds  int
		held     func(s int) float64
		leak     bool
	}{
		{"memory that swings", resident, 300, func(int) float64 { return 30 + noise(20) }, false},
		{"memory that a warm-up needs", resident, 300, func(s int) float64 { return min(30, float64(s)*2) }, false},
		{"memory that is given back in the end", resident, 300, func(s int) float64 { return 20 + float64((280-s)*(280-s)%90) }, false},
		{"200 kB a second", resident, 300, func(s int) float64 { return 30 + float64(s)/5 + noise(20) }, true},
		{"100 kB a second of live heap", heap, 240, func(s int) float64 { return 5 + float64(s)/10 + noise(3) }, true},
		{"goroutines of connections that come and go", goroutines, 300, func(int) float64 { return 40 + noise(100) }, false},
		{"a goroutine each five seconds", goroutines, 300, func(s int) float64 { return 40 + float64(s/5) + noise(100) }, true},
		{"a descriptor each ten seconds", descriptors, 300, func(s int) float64 { return 20 + float64(s/10) }, true},
		{"too short a life to say", descriptors, 200, func(s int) float64 { return float64(s * 10) }, false},
	} {
		leaks := lived(c.seconds, c.resource, c.held).leaks()
		if (len(leaks) > 0) != c.leak {
			t.Errorf("%s: leaks %v, want one: %t", c.name, leaks, c.leak)
		}
		if len(leaks) > 0 && !strings.Contains(leaks[0], c.resource) {
			t.Errorf("%s: %s does not name the %s", c.name, leaks[0], c.resource)
		}
	}
}

func TestALeakIsToldWithItsCourse(t *testing.T) {
	leaks := lived(300, goroutines, func(s int) float64 { return 40 + float64(s/20*10) + float64(s%7) }).leaks()
	if want := "the least of each 20s: 40 50 60 70 80 90 100 110 120 130 140 150 160 170 180"; len(leaks) != 1 || !strings.HasSuffix(leaks[0], want) {
		t.Errorf("%q, want one that ends in %q", leaks, want)
	}
}

// A member more is no leak, and hides none.
func TestOnlyWhatIsHeldInTheSameCompanyIsCompared(t *testing.T) {
	for _, c := range []struct {
		name         string
		company      func(s int) int
		held         func(s int) float64
		judged, leak bool
	}{
		{"another joins and stays", func(s int) int { return 7 + s/200 }, func(s int) float64 { return 90 + 24*float64(s/200) }, false, false},
		{"another joins, and leaves before the end", func(s int) int { return 7 + s/100%2 }, func(s int) float64 { return 90 + 24*float64(s/100%2) }, true, false},
		{"another comes and goes, and leaves something each time", func(s int) int { return 7 + s/25%2 }, func(s int) float64 { return 90 + 24*float64(s/25%2) + float64(s/4) }, true, true},
		{"who is left holds what others had", func(s int) int { return 8 - s/150 }, func(s int) float64 { return 90 }, false, false},
		{"what is held while one joins or leaves", func(s int) int { return 7 * min(1, s/10%4) }, func(s int) float64 { return 90 + 200*float64(1-min(1, s/10%4)) }, true, false},
		{"all have left for the end, and something stays", func(s int) int { return 7 * min(1, (290-min(290, s))/5) }, func(s int) float64 { return 90 + float64(s/5) - 80*float64(s/290) }, true, true},
		{"in the same company for moments of the last third", func(s int) int { return 7 + min(1, s/150)*min(1, s%70/10) }, func(s int) float64 { return 90 + 100*float64(s/200) }, false, false},
		{"in the same company for half a minute at the end", func(s int) int { return 8 - min(1, s/110) + s/270 }, func(s int) float64 { return 90 + 100*float64(s/250) }, false, false},
		{"in the same company for most of a minute at the end", func(s int) int { return 8 - min(1, s/110) + s/250 }, func(s int) float64 { return 90 + 100*float64(s/230) }, true, true},
	} {
		l := inCompany(300, c.company, c.held)
		_, judged := l.trends()
		if leak := len(l.leaks()) > 0; judged != c.judged || leak != c.leak {
			t.Errorf("%s: judged %t, leaks %v; want %t, and leaks: %t", c.name, judged, l.leaks(), c.judged, c.leak)
		}
	}
}

// inCompany is a life of so many seconds with company(second) members and held(second) goroutines.
func inCompany(seconds int, company func(second int) int, held func(second int) float64) *life {
	l := lived(seconds, goroutines, held)
	for s := range l.Samples {
		l.Samples[s].Company = company(s)
	}
	return l
}

// A life of half an hour is not without a judgement because it ended in other company than it began in.
func TestAnyCompanyOfALifeServesToCompare(t *testing.T) {
	for _, c := range []struct {
		name        string
		company     func(s int) int
		held        func(s int) float64
		first, last float64
		leak        bool
	}{
		{"one in the middle", func(s int) int { return 7 + min(1, s/100) + s/1700 }, func(s int) float64 { return 90 + float64(s/10) }, 100, 206, true},
		{"one in the middle that leaves nothing", func(s int) int { return 7 + min(1, s/100) + s/1700 }, func(s int) float64 { return 90 + float64(s/1700) }, 90, 90, false},
		{"one of three that are met for a minute, again and again", func(s int) int { return min(1, s%90/30) * (7 + s/90%3) }, func(s int) float64 { return 90 + float64(s/10) }, 102, 214, true},
		{"the one met over the longest time", func(s int) int { return 7 + min(1, s/100) - min(1, s/1700) }, func(s int) float64 { return 90 + float64(s/10) }, 93, 260, true},
	} {
		trends, ok := inCompany(1800, c.company, c.held).trends()
		if got := trends[goroutines]; !ok || got != (trend{c.first, c.last, c.leak}) {
			t.Errorf("%s: %v, judged %t; want %v", c.name, got, ok, trend{c.first, c.last, c.leak})
		}
	}
}

func TestCompanyIsAsLargeAsThoseWhoHaveJoinedForSomeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web, guest := newMember("web", 0), newMember("guest", 1)
		c := &company{members: []*member{web, guest}}
		wants := func(when string, now, later int) {
			t.Helper()
			if n := c.size(); n != now {
				t.Errorf("%s: %d, want %d", when, n, now)
			}
			time.Sleep(warmUp)
			if n := c.size(); n != later {
				t.Errorf("%v after that, %s: %d, want %d", warmUp, when, n, later)
			}
		}
		arrive := func(m *member) {
			agent, err := traffic.NewAgent(traffic.Config{Name: m.name})
			if err != nil {
				t.Fatal(err)
			}
			ours, theirs := net.Pipe()
			go agent.ServeConn(theirs)
			if err := c.arrive(m, traffic.NewController(ours)); err != nil {
				t.Fatal(err)
			}
		}
		arrive(web)
		wants("the first has joined", 0, 1)
		arrive(guest)
		wants("another has joined", 0, 2)
		c.depart(guest)
		wants("it was killed", 2, 2)
		arrive(guest)
		wants("it was started again", 2, 2)
		c.takeLeave(guest)
		c.depart(guest)
		wants("it has left", 0, 1)
		c.end()
		wants("all has ended", 0, 0)
		c.depart(web)
		if len(c.problems) > 0 {
			t.Error(c.problems)
		}
	})
}

func TestConnectionMayDieOnlyWithItsEnd(t *testing.T) {
	web, desk, depot := newMember("web", 0), newMember("desk", 1), newMember("depot", 2)
	c := &company{members: []*member{web, desk, depot}}
	start := time.Unix(1000, 0)
	depot.gaps = []span{{start.Add(8 * time.Second), start.Add(10 * time.Second)}}
	web.deaths = []span{{start.Add(9900 * time.Millisecond), start.Add(10 * time.Second)}}
	late := func(f traffic.Finding, busy bool) traffic.Finding { f.Late, f.Busy = true, busy; return f }
	busy := func(f traffic.Finding) traffic.Finding { f.Busy = true; return f }
	back := func(f traffic.Finding) traffic.Finding { f.Back = true; return f }
	finding := func(what traffic.Wrong, from, to string, began, lost int) traffic.Finding {
		return traffic.Finding{What: what, From: from, To: to, Began: start.Add(time.Duration(began) * time.Second), At: start.Add(time.Duration(lost) * time.Second)}
	}
	for _, x := range []struct {
		name   string
		f      traffic.Finding
		excuse bool
	}{
		{"its far end died", finding(traffic.Broken, "desk", "web", 0, 11), true},
		{"its near end died", finding(traffic.Broken, "web", "desk", 0, 11), true},
		{"another died", finding(traffic.Broken, "desk", "depot", 0, 11), false},
		{"it was lost before", finding(traffic.Broken, "desk", "web", 0, 9), false},
		{"it began after", finding(traffic.Broken, "desk", "web", 11, 12), false},
		{"it was made when its end's peer was gone", finding(traffic.Broken, "desk", "depot", 7, 11), true},
		{"it was there before its end's peer was gone", finding(traffic.Broken, "desk", "depot", 4, 11), false},
		{"a packet came twice after its receiver's peer was restarted", finding(traffic.Twice, "desk", "depot", 0, 12), true},
		{"a packet came twice long after that", finding(traffic.Twice, "desk", "depot", 0, 19), false},
		{"a packet came twice where nobody was restarted", finding(traffic.Twice, "depot", "desk", 0, 12), false},
		{"an answer came twice after the peer of who asked was restarted", back(finding(traffic.Twice, "depot", "desk", 0, 12)), true},
		{"an answer came twice after the peer of whom was asked was restarted", back(finding(traffic.Twice, "desk", "depot", 0, 12)), true},
		{"an answer came twice long after that", back(finding(traffic.Twice, "depot", "desk", 0, 19)), false},
		{"an answer came twice where nobody was restarted", back(finding(traffic.Twice, "web", "desk", 0, 12)), false},
		{"a packet came twice at one that died", finding(traffic.Twice, "desk", "web", 0, 12), false},
		{"it began while its far end was dying", finding(traffic.Broken, "desk", "web", 10, 10), true},
		{"its bytes were wrong", finding(traffic.WrongBytes, "desk", "web", 0, 11), false},
		{"no answer came in time", late(finding(traffic.Refused, "desk", "depot", 4, 6), false), false},
		{"no answer came in time, of a machine that was busy", late(finding(traffic.Refused, "desk", "depot", 4, 6), true), true},
		{"it was silent for too long", late(finding(traffic.Broken, "desk", "depot", 0, 60), false), false},
		{"it was silent for too long, on a machine that was busy", late(finding(traffic.Broken, "desk", "depot", 0, 60), true), false},
		{"it did not end in time, on a machine that was busy", late(finding(traffic.Unending, "desk", "depot", 0, 60), true), true},
		{"it was reset, on a machine that was busy", busy(finding(traffic.Broken, "desk", "depot", 0, 6)), false},
		{"its bytes were wrong, on a machine that was busy", busy(finding(traffic.WrongBytes, "desk", "depot", 0, 6)), false},
		{"a packet came twice where nobody was restarted, on a machine that was busy", busy(finding(traffic.Twice, "depot", "desk", 0, 12)), false},
		{"a packet came twice long after its receiver's peer was restarted, on a machine that was busy", busy(finding(traffic.Twice, "desk", "depot", 0, 19)), true},
		{"it was there before its end's peer was gone, on a machine that was busy", busy(finding(traffic.Broken, "desk", "depot", 1, 11)), false},
	} {
		c.findings = []traffic.Finding{x.f}
		if got := len(c.inexcusable()) == 0; got != x.excuse {
			t.Errorf("%s: excused %t, want %t", x.name, got, x.excuse)
		}
	}
}

// What the machine excuses is shown, and not among what ends excuse.
func TestWhatTheMachineExcusesIsCounted(t *testing.T) {
	s := newSoak(quietly(), &ground{company: &company{members: []*member{newMember("web", 0), newMember("desk", 1)}}})
	for range 3 {
		s.company.findings = append(s.company.findings, traffic.Finding{What: traffic.Refused, From: "desk", To: "web", Late: true, Busy: true})
	}
	r := s.report(time.Minute, nil)
	var text strings.Builder
	r.write(&text)
	if len(r.Wrong) > 0 || len(r.Late) != 3 || r.Excused != 0 || !strings.Contains(text.String(), "3 connections and requests had no answer in time") {
		t.Errorf("wrong: %v, late: %v, excused: %d, in\n%s", r.Wrong, r.Late, r.Excused, &text)
	}
}

// A stream that is lost is one thing that is wrong, told with what its other end saw and what was dealt before it.
func TestBothEndsOfALostStreamAreTold(t *testing.T) {
	at := time.Unix(1000, 0)
	s := newSoak(quietly(), &ground{company: &company{members: []*member{newMember("web", 0), newMember("desk", 1)}}})
	s.dealt = []outcome{{Kind: "bad line", Whom: "home b", Over: at}}
	lost := traffic.Finding{What: traffic.Broken, From: "desk", To: "web", Flow: "stream IPv4", Began: at, At: at.Add(3 * time.Second), Error: "reset"}
	seen, other, later := lost, lost, lost
	seen.What, seen.Error = traffic.Witnessed, "no route"
	other.What, other.Flow, other.Error = traffic.Witnessed, "stream IPv6", "another's"
	later.What, later.Began, later.Error = traffic.Witnessed, at.Add(time.Minute), "a later one's"
	s.company.findings = []traffic.Finding{seen, lost, other, later}
	r := s.report(2*time.Minute, nil)
	if len(r.Wrong) != 1 || r.Excused != 0 {
		t.Fatalf("wrong: %q, excused: %d", r.Wrong, r.Excused)
	}
	for _, want := range []string{"reset", "no route", "bad line"} {
		if !strings.Contains(r.Wrong[0], want) {
			t.Errorf("%q is not in %q", want, r.Wrong[0])
		}
	}
	if strings.Contains(r.Wrong[0], "another's") || strings.Contains(r.Wrong[0], "later") {
		t.Errorf("it is told with what became of others: %q", r.Wrong[0])
	}
}

// Of what is lost in calm the report says what came before it: whoever looks for the reason begins there.
func TestWhatIsLostInCalmIsShown(t *testing.T) {
	at := time.Unix(1000, 0)
	s := newSoak(quietly(), &ground{company: &company{members: []*member{newMember("web", 0)}}})
	s.dealt = []outcome{{Kind: "bad line", Whom: "home b", Over: at}, {Kind: "link goes down", Whom: "web", Over: at.Add(time.Minute)}}
	s.company.findings = []traffic.Finding{{What: traffic.Lost, From: "web", To: "desk", Flow: "UDP", Began: at.Add(3 * time.Second), At: at.Add(2 * time.Minute), Error: "datagram 7"}}
	var text strings.Builder
	s.report(2*time.Minute, nil).write(&text)
	if want := "- datagram lost: 00:18:40.0: UDP from web to desk, 117.0 s old: datagram 7; 3.0 s after: bad line, home b\n"; !strings.Contains(text.String(), want) {
		t.Errorf("not in the report: %sthe report is\n%s", want, &text)
	}
}

// Datagrams that are lost in calm are judged where times are, unless the machine was strained.
func TestLossInCalmIsJudged(t *testing.T) {
	for _, c := range []struct {
		untimed bool
		lost    uint64
		wrong   bool
	}{{false, 5, false}, {false, 100, true}, {true, 100, false}} {
		m := newMember("web", 0)
		m.past = traffic.Counts{Calm: 1000, CalmLost: c.lost}
		o := quietly()
		o.untimed = c.untimed
		r := newSoak(o, &ground{company: &company{members: []*member{m}}}).report(time.Minute, nil)
		if (len(r.Wrong) > 0) != c.wrong {
			t.Errorf("%d of 1000 lost, untimed %t: wrong is %v", c.lost, c.untimed, r.Wrong)
		}
	}
}

func TestWhatIsNotBackInTimeIsMissed(t *testing.T) {
	over := time.Unix(1000, 0)
	back := func(kind string, after time.Duration) traffic.Resumption {
		return traffic.Resumption{From: "desk", To: "web", Kind: kind, Family: "IPv4", Back: over.Add(after)}
	}
	never := traffic.Resumption{From: "desk", To: "depot", Kind: traffic.Datagram}
	p := planned{kind: &kind{bound: usualBound}, lasts: time.Second}
	long := planned{kind: &kind{bound: usualBound}, lasts: 2 * longOutage}
	hiccup, busy := strain.Reading{Worst: time.Second}, strain.Reading{Share: 0.5, Worst: 30 * time.Millisecond}
	var quiet strain.Reading
	for _, c := range []struct {
		name    string
		p       planned
		machine strain.Reading
		untimed bool
		all     []traffic.Resumption
		missed  int
		took    time.Duration
	}{
		{"all in time", p, quiet, false, []traffic.Resumption{back(traffic.Request, time.Second), back(traffic.Datagram, 2*time.Second)}, 0, 2 * time.Second},
		{"one late", p, quiet, false, []traffic.Resumption{back(traffic.Request, time.Second), back(traffic.Ping, 3*time.Second)}, 1, 3 * time.Second},
		{"one never", p, quiet, false, []traffic.Resumption{back(traffic.Request, time.Second), never}, 1, patience},
		{"a stream late, as TCP waits", p, quiet, false, []traffic.Resumption{back(traffic.Stream, 3*time.Second), back(traffic.Ping, time.Second)}, 0, time.Second},
		{"after a long outage", long, quiet, false, []traffic.Resumption{back(traffic.Request, 4*time.Second)}, 0, 4 * time.Second},
		{"late after a long outage", long, quiet, false, []traffic.Resumption{back(traffic.Request, 6*time.Second)}, 1, 6 * time.Second},
		{"late on a machine that is late", p, hiccup, false, []traffic.Resumption{back(traffic.Request, 6*time.Second)}, 0, 6 * time.Second},
		{"late on a machine that is busy", p, busy, false, []traffic.Resumption{back(traffic.Request, 6*time.Second)}, 0, 6 * time.Second},
		{"late where no time is judged", p, quiet, true, []traffic.Resumption{back(traffic.Request, 6*time.Second)}, 0, 6 * time.Second},
		{"never on a machine that is busy", p, busy, false, []traffic.Resumption{never}, 1, patience},
		{"never where no time is judged", p, quiet, true, []traffic.Resumption{never}, 1, patience},
	} {
		o := judgeRecovery(c.p, over, c.all, c.machine, !c.untimed)
		if len(o.Missed) != c.missed || o.Recovery != c.took {
			t.Errorf("%s: missed %v after %v, want %d after %v", c.name, o.Missed, o.Recovery, c.missed, c.took)
		}
		if judged := c.machine == quiet && !c.untimed; o.Judged != judged {
			t.Errorf("%s: judged %t, want %t", c.name, o.Judged, judged)
		}
		if says := strings.Contains(o.note(!c.untimed), "too busy to say"); says != (c.machine != quiet && c.missed == 0) {
			t.Errorf("%s: the line says %q", c.name, o.note(!c.untimed))
		}
	}
}
