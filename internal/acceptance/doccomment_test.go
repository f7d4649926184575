package acceptance_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocumented: every exported symbol of every public package says what it is,
// each constant of a group and each field of a struct for itself, and every method
// of an exported type but those that an interface of the standard library defines.
func TestDocumented(t *testing.T) {
	const root = "../.."
	packages := 0
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		switch name := d.Name(); {
		case name == "internal", name == "examples", name == "testdata", name == "bench", name == "docs":
			return filepath.SkipDir
		case path != root && strings.HasPrefix(name, "."):
			return filepath.SkipDir
		}
		if undocumented(t, path) {
			packages++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if packages < 9 {
		t.Errorf("looked at %d packages only", packages)
	}
}

// wellKnown are methods that an interface everybody knows defines.
var wellKnown = map[string]bool{"Error": true, "Unwrap": true, "Is": true, "String": true, "MarshalJSON": true, "UnmarshalJSON": true, "MarshalText": true, "UnmarshalText": true}

func undocumented(t *testing.T, dir string) (isPackage bool) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	documented := false
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		isPackage = true
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if f.Name.Name == "main" {
			return false
		}
		documented = documented || f.Doc != nil
		miss := func(n ast.Node, name string) { t.Errorf("%s: %s has no comment", fset.Position(n.Pos()), name) }
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Doc == nil && d.Name.IsExported() && !wellKnown[d.Name.Name] && exportedReceiver(d) {
					miss(d, d.Name.Name)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						if d.Doc == nil && s.Doc == nil && s.Name.IsExported() {
							miss(s, s.Name.Name)
						}
						// driver's are told of at their types, which their authors read whole.
						if x, ok := s.Type.(*ast.StructType); ok && s.Name.IsExported() && !strings.Contains(path, "/driver/") {
							for _, f := range x.Fields.List {
								for _, name := range f.Names {
									if f.Doc == nil && f.Comment == nil && name.IsExported() {
										miss(f, s.Name.Name+"."+name.Name)
									}
								}
							}
						}
					case *ast.ValueSpec:
						for _, name := range s.Names {
							alone := d.Doc != nil && len(d.Specs) == 1
							if !alone && s.Doc == nil && s.Comment == nil && name.IsExported() {
								miss(name, name.Name)
							}
						}
					}
				}
			}
		}
	}
	if isPackage && !documented {
		t.Errorf("%s has no package comment", dir)
	}
	return isPackage
}

// exportedReceiver reports whether a function is none of a type that nobody sees.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	switch x := typ.(type) {
	case *ast.IndexExpr:
		typ = x.X
	case *ast.IndexListExpr:
		typ = x.X
	}
	name, ok := typ.(*ast.Ident)
	return ok && name.IsExported()
}
