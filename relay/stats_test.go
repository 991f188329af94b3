package relay

import "testing"

func TestEveryDropHasANameAndAMeaning(t *testing.T) {
	all := Drops()
	for d, row := range dropTable {
		if row.name == "" || all[row.name] == "" {
			t.Errorf("drop %d: %+v", d, row)
		}
	}
	if len(all) != int(dropReasons) {
		t.Errorf("%d names of %d reasons", len(all), dropReasons)
	}
}
