package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// outcome is how the tests of one program ended.
type outcome struct {
	Passed int
	Failed []string
	Known  []string // that are known to fail

	whole bool // the program told how the test as a whole ended
}

func (o outcome) ok() bool { return len(o.Failed) == 0 && o.Passed > 0 }

func (o outcome) String() string {
	text := fmt.Sprintf("%d rows", o.Passed)
	if len(o.Failed) > 0 {
		text = fmt.Sprintf("%d rows, **%d failed**", o.Passed, len(o.Failed))
	}
	if len(o.Known) > 0 {
		text += fmt.Sprintf(", %d known to fail", len(o.Known))
	}
	return text
}

// end says how the program ended, beyond what it told of its tests.
func (o *outcome) end(err error) {
	switch {
	case err != nil && !o.whole:
		o.Failed = append(o.Failed, "the run ended early: "+err.Error())
	case err != nil && len(o.Failed) == 0:
		o.Failed = append(o.Failed, "the run as a whole: "+err.Error())
	case o.Passed+len(o.Failed)+len(o.Known) == 0:
		o.Failed = append(o.Failed, "nothing was tested")
	}
}

// read reads what go test -json tells, and prints what tests that fail printed.
func read(r io.Reader, depth int) (outcome, error) {
	var o outcome
	output := map[string][]string{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var event struct{ Action, Test, Output string }
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return o, fmt.Errorf("%w: %s", err, lines.Text())
		}
		_, name, inner := strings.Cut(event.Test, "/")
		if !inner {
			name = event.Test
		}
		row := event.Test != "" && strings.Count(event.Test, "/") == depth
		verdict := true
		switch event.Action {
		case "output":
			output[event.Test] = append(output[event.Test], event.Output)
			verdict = false
		case "fail":
			fmt.Print(strings.Join(output[event.Test], ""))
			if row {
				o.Failed = append(o.Failed, name)
			}
		case "skip":
			if row {
				o.Known = append(o.Known, name)
			}
		case "pass":
			if row {
				o.Passed++
			}
		default:
			verdict = false
		}
		if verdict {
			delete(output, event.Test)
			o.whole = o.whole || event.Test != "" && !inner
		}
	}
	return o, lines.Err()
}
