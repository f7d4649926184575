package testbroker

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestProgramAt(t *testing.T) {
	tree := t.TempDir()
	for _, dir := range []string{"etc", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(tree, "etc", "os-release"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p := programAt(filepath.Join(tree, "usr/bin/redis-server"))
	if p.tree != tree || p.path != "/usr/bin/redis-server" || p.home("/data") == "/data" {
		t.Errorf("a program in a tree: %+v", p)
	}
	if args := p.command("--port", "1").Args; !slices.Equal(args[len(args)-4:], []string{tree, p.path, "--port", "1"}) {
		t.Errorf("it is started by %q", args)
	}
	// This system's own root is no tree.
	p = programAt("/usr/bin/redis-server")
	if p.tree != "" || p.path != "/usr/bin/redis-server" || p.home("/data") != "/data" {
		t.Errorf("a program of this system: %+v", p)
	}
}

func TestServerVariable(t *testing.T) {
	for _, k := range kinds {
		t.Setenv(serverVariable(k), "/no/such/server")
		_, err := startServer(k, Setup{}, nil)
		if err == nil || !strings.Contains(err.Error(), serverVariable(k)+" names no program") || !strings.Contains(err.Error(), "/no/such/server") {
			t.Errorf("%s: %v", k.title(), err)
		}
	}
}
