package peer_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/adit-overlay/adit/engine"
	"github.com/adit-overlay/adit/peer"
	"github.com/adit-overlay/adit/relay"
)

// TestEveryCounterOfAStatusHasAMeaning compares the table with the fields of Status and the reasons to drop.
func TestEveryCounterOfAStatusHasAMeaning(t *testing.T) {
	var want []string
	var walk func(path string, of reflect.Type)
	walk = func(path string, of reflect.Type) {
		for i := range of.NumField() {
			f := of.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				t.Errorf("%v.%s has no name in JSON", of, f.Name)
			}
			in := f.Type
			if in.Kind() == reflect.Pointer {
				in = in.Elem()
			}
			switch in.Kind() {
			case reflect.Struct:
				if path != "" || strings.HasSuffix(in.Name(), "Stats") {
					walk(path+name+".", in)
				}
			case reflect.Map:
				for d := range engine.Drops() {
					if path == "engine." {
						want = append(want, path+name+"."+d.String())
					}
				}
				for d := range relay.Drops() {
					if path == "relay." {
						want = append(want, path+name+"."+d)
					}
				}
			case reflect.Int, reflect.Uint64:
				if path != "" {
					want = append(want, path+name)
				}
			}
		}
	}
	walk("", reflect.TypeFor[peer.Status]())
	var got []string
	for _, c := range peer.Counters() {
		got = append(got, c.Path)
		if c.Meaning == "" {
			t.Errorf("%s has no meaning", c.Path)
		}
		if strings.Contains(c.Path, ".drops.") && !c.Drop {
			t.Errorf("%s is no drop", c.Path)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	for _, path := range want {
		if !slices.Contains(got, path) {
			t.Errorf("%s has no meaning", path)
		}
	}
	for _, path := range slices.Compact(slices.Clone(got)) {
		if !slices.Contains(want, path) {
			t.Errorf("%s means something and is no counter", path)
		}
	}
	if len(want) < 80 || len(want) != len(got) {
		t.Errorf("%d counters, %d meanings", len(want), len(got))
	}
}
