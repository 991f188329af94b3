package wire

import "time"

// Limits of a session (§17).
const (
	// RekeyAfterPackets is how many packets one direction carries before its sender asks for new keys.
	RekeyAfterPackets = 1 << 28

	// RejectAfterPackets is the first counter that is never sealed and never opened.
	RejectAfterPackets = 1 << 32

	RekeyAfter   = 5 * time.Minute  // age at which the initiator of a session makes the next
	TakeOver     = 30 * time.Second // later than RekeyAfter the responder does so, if it still needs one
	RejectAfter  = 9 * time.Minute  // age at which a session neither seals nor opens any more
	KeepPrevious = 90 * time.Second // how long a replaced session may still open
)

// Limits of handshakes and of unauthenticated answers (§7, §15, §16, §18, §19).
const (
	CookieLife = 2 * time.Minute // how long a cookie is stamped, and between renewals of the secret

	Cooldown      = 5 * time.Second // refills one handshake of a key's, or proven address's, budget
	CooldownBurst = 8               // the most handshakes such a budget holds

	// Fresh is how far an initiation's timestamp may be from the receiver's clock to count as made just now. Those that are not
	// have a budget apart, which recordings may use up.
	Fresh = time.Minute

	// Precedence is how long the greater of two keys that initiated at once ignores the smaller's
	// initiation.
	Precedence = 2 * time.Second

	// NoticeInterval is the least time between two handshakes with one remote that notices prompted.
	NoticeInterval = time.Second
)
