package main

import (
	"context"

	"github.com/polymq/polymq"
)

// A service logs lines. A line's key is the service and the level; its headers
// are whatever the service knows of it.
type service struct {
	name  string
	lines []line
}

type line struct {
	level, text string
	tags        polymq.Header
}

var services = []service{
	{"auth", []line{
		{"info", "ada signed in", polymq.Header{"region": "eu", "audit": true}},
		{"info", "bob signed in", polymq.Header{"region": "us", "audit": true}},
		{"error", "the directory is not reachable", polymq.Header{"region": "eu"}},
	}},
	{"billing", []line{
		{"info", "invoice 17 is paid", polymq.Header{"region": "eu", "audit": true, "paid": int64(1700)}},
		{"debug", "cache is warm", polymq.Header{"region": "eu"}},
		{"error", "invoice 18 has no address", polymq.Header{"region": "us"}},
	}},
	{"web", []line{
		{"info", "GET /", polymq.Header{"region": "eu"}},
		{"info", "GET /report", polymq.Header{"region": "eu", "slow": true}},
	}},
}

// log publishes the lines one after another: that is their order in each queue.
func (s service) log(ctx context.Context, conn *polymq.Conn, exchange string) error {
	pub, err := conn.Publisher(ctx, exchange, &polymq.PublisherOptions{
		DropUnroutable: true, // a line that no sink wants is no error
	})
	if err != nil {
		return err
	}
	for _, l := range s.lines {
		m := &polymq.Message{Key: s.name + "." + l.level, AppID: s.name, Header: l.tags, Body: []byte(l.text)}
		if err := pub.Publish(ctx, m); err != nil {
			return err
		}
	}
	return pub.Close(ctx)
}
