package nats

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// parseAck reads the answer to a publish. The server writes a success as
// {"stream":"name", "seq":5} with nothing but the name in it that a program
// chose, and an error as {"error":{…}: only the second is worth a JSON parser.
func parseAck(data []byte) (seq uint64, err error) {
	if bytes.HasPrefix(data, []byte(`{"stream":`)) {
		if i := bytes.Index(data, []byte(`"seq":`)); i >= 0 {
			digits := data[i+len(`"seq":`):]
			for len(digits) > 0 && digits[0] == ' ' {
				digits = digits[1:]
			}
			for _, c := range digits {
				if c < '0' || c > '9' {
					break
				}
				seq = seq*10 + uint64(c-'0')
			}
			if seq > 0 {
				return seq, nil
			}
		}
	}
	var ack struct {
		Error *apiError `json:"error"`
		Seq   uint64    `json:"seq"`
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return 0, fmt.Errorf("nats: answer to a publish: %w", err)
	}
	if ack.Error != nil {
		return 0, ack.Error
	}
	if ack.Seq == 0 {
		return 0, fmt.Errorf("nats: answer to a publish without a sequence: %.100q", data)
	}
	return ack.Seq, nil
}
