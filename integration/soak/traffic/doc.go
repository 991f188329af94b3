// Package traffic is what the members of a soak say to each other, and the judgement of what arrives. Every byte is a
// function of its place, so that what is lost, doubled, moved or changed on the way is seen by whoever receives it.
//
// An [Agent] is one member. It serves what others ask for (server.go) and keeps flows to those it is told of: streams,
// requests, datagrams, pings. A flow has no end of its own: what breaks is told as a [Finding], and begun again. The agent
// does not judge whether there was a reason to break; who dealt the blow knows.
//
//	stream     TCP held open, bytes both ways, ended in order with the counts of both ends compared
//	request    TCP or, by a proxy, HTTP: a connection of its own, a question and an answer of any size
//	datagram   UDP there and back, numbered: nothing that was not sent, nothing twice
//	ping       ICMP echo, likewise
package traffic
