package nats

import "strings"

// ackSubject is what a delivered message's acknowledgement subject says of it.
type ackSubject struct {
	deliveries int    // of it
	seq        uint64 // its own, in the stream
	nth        uint64 // of all that its consumer delivered
	stored     int64  // Unix nanoseconds
}

// parseAckSubject reads
// $JS.ACK.<stream>.<consumer>.<deliveries>.<seq>.<nth>.<stored>.<pending>, or
// the newer form, which has domain and account hash before the stream.
func parseAckSubject(subject string) (a ackSubject, ok bool) {
	// Only the last five tokens matter; the server may append others to the
	// newer form.
	rest, ok := strings.CutPrefix(subject, "$JS.ACK.")
	if !ok {
		return a, false
	}
	n := strings.Count(rest, ".") + 1
	before := 2
	switch {
	case n == 7:
	case n >= 9:
		before = 4
	default:
		return a, false
	}
	for range before {
		rest = rest[strings.IndexByte(rest, '.')+1:]
	}
	var v [4]uint64
	for i := range v {
		token, after, _ := strings.Cut(rest, ".")
		if v[i], ok = parseDigits(token); !ok {
			return a, false
		}
		rest = after
	}
	a.deliveries, a.seq, a.nth, a.stored = int(v[0]), v[1], v[2], int64(v[3])
	return a, a.deliveries > 0 && a.stored >= 0
}

// parseDigits reads a decimal number of up to 19 digits, which always fits.
func parseDigits(s string) (v uint64, ok bool) {
	if s == "" || len(s) > 19 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		v = v*10 + uint64(s[i]-'0')
	}
	return v, true
}
