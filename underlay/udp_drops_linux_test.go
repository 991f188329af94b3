package underlay

import (
	"testing"
)

// TestSocketThatIsNotReadCountsItsDrops floods a socket that nobody reads. What its buffer does not hold is counted, also once
// it is closed.
func TestSocketThatIsNotReadCountsItsDrops(t *testing.T) {
	cfg := Config{ReceiveBuffer: 4 << 10}
	to, err := ListenUDP(t.Context(), "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	from, err := ListenUDP(t.Context(), "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	for range 100 {
		if err := from.Send([]Message{{Buf: make([]byte, 10*1000), Seg: 1000, Addr: to.LocalAddr()}}); err != nil {
			t.Fatal(err)
		}
	}
	n := to.Stats().Drops.ReceiveBuffer
	if n == 0 || n > 1000 {
		t.Errorf("%d dropped of 1000", n)
	}
	to.Close()
	if again := to.Stats().Drops.ReceiveBuffer; again != n {
		t.Errorf("%d, and after Close %d", n, again)
	}
}
