package otelpolymq_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
)

var sentinels = map[string]error{
	"ErrClosed":      polymq.ErrClosed,
	"ErrInvalid":     polymq.ErrInvalid,
	"ErrNotFound":    polymq.ErrNotFound,
	"ErrConflict":    polymq.ErrConflict,
	"ErrInUse":       polymq.ErrInUse,
	"ErrUnroutable":  polymq.ErrUnroutable,
	"ErrRejected":    polymq.ErrRejected,
	"ErrTooLarge":    polymq.ErrTooLarge,
	"ErrUnconfirmed": polymq.ErrUnconfirmed,
	"ErrSettled":     polymq.ErrSettled,
	"ErrLost":        polymq.ErrLost,
	"ErrPermission":  polymq.ErrPermission,
	"ErrUndecodable": polymq.ErrUndecodable,
	"ErrNoReply":     polymq.ErrNoReply,
}

// Every sentinel of the package polymq has a name of its own, which the
// documentation has too: one that is added there is missed here.
func TestEverySentinelHasAName(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, documented, _ := strings.Cut(string(doc), "# Errors")
	declared := sentinelsIn(t, "..")
	if len(declared) < 10 {
		t.Fatalf("found only %q", declared)
	}
	s := newScene(t, testbroker.URL(t, "mem"), nil)
	for _, name := range declared {
		err, ok := sentinels[name]
		if !ok {
			t.Errorf("polymq.%s is not among the sentinels of this test", name)
			continue
		}
		s.spans.Reset()
		s.do(s.publisher("").Publish(s.ctx, &polymq.Message{Key: "plain"}))
		s.run(s.ctx, "plain", 1, func(context.Context, *polymq.Delivery) error { return polymq.Permanent(err) })
		want := snake(strings.TrimPrefix(name, "Err"))
		if got := errorTypeOf(s.one("process plain")); got != want {
			t.Errorf("polymq.%s: error.type %q, want %q", name, got, want)
		}
		if !regexp.MustCompile(`\b` + want + `\b`).MatchString(documented) {
			t.Errorf("the documentation does not name %q", want)
		}
	}
}

// sentinelsIn are the names of the error variables of a package's files, sorted.
func sentinelsIn(t *testing.T, dir string) (names []string) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			vars, ok := d.(*ast.GenDecl)
			if !ok || vars.Tok != token.VAR {
				continue
			}
			for _, spec := range vars.Specs {
				for _, id := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(id.Name, "Err") {
						names = append(names, id.Name)
					}
				}
			}
		}
	}
	slices.Sort(names)
	return names
}

var inner = regexp.MustCompile(`(\w)([A-Z])`)

func snake(name string) string {
	return strings.ToLower(inner.ReplaceAllString(name, "${1}_${2}"))
}
