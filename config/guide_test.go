package config_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/polymq/polymq/config"
)

var block = regexp.MustCompile("(?s)```(ini|yaml)\n(.*?)```")

// The files that the guide shows are what this package reads.
func TestGuide(t *testing.T) {
	page, err := os.ReadFile("../docs/guides/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("POLYMQ_URL", "")
	urls, topologies := 0, 0
	for _, b := range block.FindAllStringSubmatch(string(page), -1) {
		file := write(t, "shown."+b[1], b[2])
		if strings.Contains(b[2], "queues:") {
			topologies++
			if top, err := config.ReadTopology(file); err != nil || len(top.Exchanges) != 1 || len(top.Queues) != 1 || len(top.Bindings) != 1 {
				t.Errorf("%v, %+v\n%s", err, top, b[2])
			}
			continue
		}
		urls++
		if url, err := config.URL(file); err != nil || url != "amqp://user:password@rabbit:5672/shop" {
			t.Errorf("%q, %v\n%s", url, err, b[2])
		}
	}
	if urls != 2 || topologies != 1 {
		t.Errorf("the guide shows %d files with a URL and %d topologies", urls, topologies)
	}
}
