package testbroker

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A mender is a kind whose data can come to be such that it does not start with
// them until an operator has mended them.
type mender interface {
	// mend does what the operator would do, and reports whether that was called for.
	mend(s *server) (bool, error)
}

// tornFile is what Redis says of an append-only file that it cannot read.
const tornFile = "Bad file format reading the append only file"

// mend cuts the append-only file off where it is torn. Redis writes it from where a
// write that the full disk broke off had ended, although it has cut the file back
// before that; so there is a hole, unless the file is still the one of its start.
func (redis) mend(s *server) (bool, error) {
	if !strings.Contains(s.logTail(), tornFile) {
		return false, nil
	}
	server, err := findRedis()
	if err != nil {
		return false, err
	}
	dir := s.dir
	if s.setup.Disk > 0 {
		dir = s.data()
	}
	file := filepath.Join("appendonlydir", "appendonly.aof.manifest")
	if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
		file = "appendonly.aof" // before 7.0
	}
	check := server
	check.path = filepath.Join(filepath.Dir(server.path), "redis-check-aof")
	cmd := check.command("--fix", filepath.Join(check.home(s.dir), strings.TrimPrefix(dir, s.dir), file))
	cmd.Dir, cmd.Stdin = s.dir, strings.NewReader("y\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return false, fmt.Errorf("redis-check-aof: %w: %s", err, bytes.TrimSpace(out))
	}
	return true, nil
}
