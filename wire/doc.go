// Package wire is the protocol of adit, pure: bytes in, bytes and decisions out. It opens no
// socket, starts no goroutine, reads no clock (time is an argument) and writes no log. Where it
// needs randomness it takes an io.Reader; nil means crypto/rand.
//
// docs/protocol.md draws every format byte by byte and states the rules; sections are cited here
// as §n. testdata holds vectors for other implementations.
//
// # Datagrams
//
// The first byte of a datagram is its [Kind] (§2). All integers are big-endian.
//
//	1 initiation     1 | 000 | sender index 4 | e 32 | static 48 | payload 14+n, tag 16 | MAC1 16 | MAC2 16
//	2 response       2 | 000 | sender index 4 | receiver index 4 | e 32 | tag 16 | MAC1 16 | MAC2 16
//	3 cookie reply   3 | 000 | receiver index 4 | nonce 12 | cookie 16, tag 16
//	4 data           4 | flags 1 | 00 | receiver index 4 | counter 8 | inner bytes, tag 16
//	5 notice         5 | 000 | receiver index 4
//	6 circuit data   6 | 000 | circuit 8 | a datagram of kind 1 to 5
//	7 circuit notice 7 | code 1 | 00 | circuit 8
//
// # A handshake
//
// The initiator and the responder each have a [Local], and a [Cookie] for each remote. [Local.Know] computes
// beforehand what all handshakes with a remote have in common.
//
//	initiator                                          responder
//	ini, msg, err := local.Initiate(…)
//	cookie.Stamp(msg, now)            – initiation →
//	                                                   local.CheckMAC1(msg)       cheap
//	                                                   jar.Check(msg, from, now)  only under load; if
//	                                                   false: send jar.AppendReply(…), nothing more
//	                                                   req, err := local.ReadInitiation(msg)
//	                                                   req.Timestamp newer than the last of req.Remote?
//	                                                   msg, keys, err := req.Respond(…)
//	                                  ← response –     cookie.Stamp(msg, now)
//	local.CheckMAC1(msg)
//	keys, err := ini.Finish(msg)
//	keys.NewSealer().Reserve(1) …     – data →         the first valid one confirms the session
//
// A pre-shared key that differs shows at the initiator, whose Finish fails with [ErrHandshake].
// The responder cannot notice: it sees no first data packet, and so never uses the session.
//
// # Data
//
// A [Sealer] and an [Opener] may be used by many goroutines at once and allocate nothing. A
// [Window] has no lock: its owner guards it, best with one lock taken once a batch. Open comes first and
// the window second, so that a forged counter can never move the window.
//
// What is opened is told apart by [InnerOf]: a packet, a keepalive or a control message
// ([ParseControl]).
//
// # Errors
//
// Every error concerns the one datagram or argument it was returned for. Nothing here is left
// in a broken state by bad input; in particular an [Initiation] survives any number of forged
// responses. Errors that begin as one of the exported values can be told by errors.Is.
package wire
