package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A sample is what was measured at one moment.
type sample struct {
	At         float64 `json:"at"`         // seconds since the beginning
	Heap       uint64  `json:"heap"`       // bytes of the process's heap in use, after a collection
	Resident   uint64  `json:"resident"`   // bytes of memory of the process; 0 where unknown
	Broker     uint64  `json:"broker"`     // bytes of memory of the broker; 0 where unknown
	Goroutines int     `json:"goroutines"` // of the process
	Waiting    int     `json:"waiting"`    // messages in the queues
	Confirmed  int64   `json:"confirmed"`  // messages since the beginning
	Received   int64   `json:"received"`   // the same
}

// A series is what was measured on one backend.
type series struct {
	backend string
	samples []sample
}

// table is the measurements as comma-separated values.
func table(head string, all []series) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", head)
	b.WriteString("backend,seconds,heap_bytes,resident_bytes,broker_bytes,goroutines,waiting,confirmed,received\n")
	for _, s := range all {
		for _, m := range s.samples {
			fmt.Fprintf(&b, "%s,%.1f,%d,%d,%d,%d,%d,%d,%d\n", s.backend, m.At, m.Heap, m.Resident, m.Broker, m.Goroutines, m.Waiting, m.Confirmed, m.Received)
		}
	}
	return b.String()
}

// resident is the memory of a process that is in use, 0 where the system does
// not tell as Linux does.
func resident(pid int) uint64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}

// broker is the memory of the processes that this one started, they or their
// children, which run a program.
func broker(program string) (bytes uint64) {
	if program == "" {
		return 0
	}
	parents := map[int]int{}
	var found []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		pid, comm, parent, ok := processAt(name)
		if !ok {
			continue
		}
		parents[pid] = parent
		if comm == program {
			found = append(found, pid)
		}
	}
	for _, pid := range found {
		for at := pid; at > 1; at = parents[at] {
			if at == os.Getpid() {
				bytes += resident(pid)
				break
			}
		}
	}
	return bytes
}

// processAt reads a process from its /proc/pid/stat: pid (name) state parent …,
// where the name can hold anything.
func processAt(file string) (pid int, comm string, parent int, ok bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, "", 0, false
	}
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 1 || end < open {
		return 0, "", 0, false
	}
	rest := strings.Fields(string(text[end+1:]))
	if len(rest) < 2 {
		return 0, "", 0, false
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(text[:open])))
	if err != nil {
		return 0, "", 0, false
	}
	parent, err = strconv.Atoi(rest[1])
	return pid, string(text[open+1 : end]), parent, err == nil
}
