package oracle

import "time"

// shrink makes a script smaller for as long as it fails: it leaves out ever
// smaller pieces, then single messages.
func shrink(s Script, until time.Time, fails func(Script) bool) Script {
	for size := max(len(s.Ops)/2, 1); ; {
		shorter := false
		for from := 0; from < len(s.Ops); {
			if time.Now().After(until) {
				return s
			}
			to := min(from+size, len(s.Ops))
			try := s
			try.Ops = append(append([]Op(nil), s.Ops[:from]...), s.Ops[to:]...)
			if len(try.Ops) > 0 && fails(try) {
				s, shorter = try, true
			} else {
				from = to
			}
		}
		switch {
		case size > 1:
			size = max(size/2, 1)
		case !shorter:
			return shrinkMessages(s, until, fails)
		}
	}
}

// shrinkMessages leaves out messages, and what messages carry.
func shrinkMessages(s Script, until time.Time, fails func(Script) bool) Script {
	for i := range s.Ops {
		p, ok := s.Ops[i].(Publish)
		if !ok {
			continue
		}
		for j := 0; j < len(p.Messages) && len(p.Messages) > 1; {
			if time.Now().After(until) {
				return s
			}
			fewer := p
			fewer.Messages = append(append(p.Messages[:0:0], p.Messages[:j]...), p.Messages[j+1:]...)
			if try := s.with(i, fewer); fails(try) {
				s, p = try, fewer
			} else {
				j++
			}
		}
		bare := p
		bare.Messages = append(p.Messages[:0:0], p.Messages...)
		for j, m := range bare.Messages {
			plain := m
			plain.Header, plain.ContentType, plain.ContentEncoding, plain.Type = nil, "", "", ""
			plain.CorrelationID, plain.ReplyTo, plain.AppID, plain.Time, plain.Transient = "", "", "", time.Time{}, false
			bare.Messages[j] = plain
		}
		if try := s.with(i, bare); time.Now().Before(until) && fails(try) {
			s = try
		}
	}
	return s
}

// with is the script with another operation in one place.
func (s Script) with(i int, op Op) Script {
	s.Ops = append([]Op(nil), s.Ops...)
	s.Ops[i] = op
	return s
}
