package wire

import (
	"bytes"
	"encoding/binary"
	"time"
)

// Timestamp is a time as TAI64N: seconds and nanoseconds, big-endian, so that it is ordered by
// its bytes (§4). The zero Timestamp is before every other.
type Timestamp [12]byte

// taiOffset makes a Unix second a TAI64 label. The ten seconds are TAI's lead in 1970; leap seconds since are not
// counted, as only the order of one peer's timestamps matters.
const taiOffset = 1<<62 + 10

// TimestampAt returns the timestamp of t.
func TimestampAt(t time.Time) Timestamp {
	var s Timestamp
	binary.BigEndian.PutUint64(s[:8], uint64(taiOffset+t.Unix()))
	binary.BigEndian.PutUint32(s[8:], uint32(t.Nanosecond()))
	return s
}

// Time is the inverse of TimestampAt.
func (s Timestamp) Time() time.Time {
	return time.Unix(int64(binary.BigEndian.Uint64(s[:8])-taiOffset), int64(binary.BigEndian.Uint32(s[8:])))
}

// After reports whether s is later than u.
func (s Timestamp) After(u Timestamp) bool { return bytes.Compare(s[:], u[:]) > 0 }

// valid reports whether s is a TAI64N label: those from 2^63 on are reserved, and a second has
// 10^9 nanoseconds.
func (s Timestamp) valid() bool {
	return s[0] < 0x80 && binary.BigEndian.Uint32(s[8:]) < 1e9
}
