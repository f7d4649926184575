package main

import (
	_ "embed"
	"strconv"
	"strings"
)

// log is what dpkg wrote to /var/log/dpkg.log on a Debian 12 machine on two
// days of 2026, while PostgreSQL, and later RabbitMQ and Redis, were installed.
//
//go:embed dpkg.log
var log string

// An event is one line of the log:
//
//	2026-11-23 05:01:36 install redis-server:amd64 <none> 5:7.0.15-1~deb12u10
//	2026-11-23 05:01:36 status unpacked redis-server:amd64 5:7.0.15-1~deb12u10
//	2026-11-23 05:01:35 startup archives unpack
type event struct {
	id   string // the line's number
	line string
	// key is install.amd64.redis-server, status.unpacked.amd64.redis-server or
	// startup.archives.unpack.
	key                string
	action, arch, name string
}

func parse(log string) []event {
	var events []event
	for line := range strings.Lines(log) {
		line = strings.TrimSpace(line)
		words := strings.Fields(line)[2:]
		e := event{id: strconv.Itoa(len(events) + 1), line: line, action: words[0]}
		subject := words[1]
		if e.action == "status" {
			e.action, subject = "status."+words[1], words[2]
		}
		var ok bool
		if e.name, e.arch, ok = strings.Cut(subject, ":"); ok {
			e.key = e.action + "." + e.arch + "." + e.name
		} else {
			e.key = strings.Join(words, ".")
		}
		events = append(events, e)
	}
	return events
}
