// Package house holds the code to the plan of the house (ARCHITECTURE.md): which rooms there are, who
// may import whom, and what every package owes its readers. It reads the sources only and needs no
// go command.
package house

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"peel/testnet/story"
)

const module = "peel"

// rooms are the folders at the top.
var rooms = []string{
	"cell", "circuit", "directory", "relay", "client", "testnet", "cmd", // code
	"spec", "docs", "packaging", "tools", ".ci", ".git",
}

// mayImport is the table of ARCHITECTURE.md: it says what a package may import of this module. "x/*" is every package below x; "*" is
// every package. Tests may also import the package itself and those made for tests.
var mayImport = map[string][]string{
	"cell":                {},
	"cell/contain":        {},
	"cell/gcm":            {}, // bytes and keys only
	"cell/hybrid":         {},
	"cell/link":           {"cell", "cell/contain", "cell/gcm", "cell/hybrid"},
	"cell/link/pipe":      {}, // bytes and time only
	"cell/link/linktest":  {"cell", "cell/link", "cell/link/pipe"},
	"cell/memtest":        {},
	"cell/spintest":       {},
	"circuit/layer":       {}, // bytes and keys only
	"circuit/stream":      {"cell", "cell/contain"},
	"circuit":             {"cell", "cell/*", "circuit/*"},
	"directory":           {"cell", "directory/strict"}, // names of nodes only
	"directory/strict":    {},
	"directory/head":      {}, // bytes and deadlines only
	"directory/dirtest":   {"cell", "directory"},
	"directory/cache":     {"cell", "cell/contain", "directory"},                                                     // names of nodes only
	"directory/authority": {"cell", "cell/contain", "cell/link", "directory", "directory/cache", "directory/strict"}, // links: reachability
	"relay/exit":          {"cell", "cell/contain", "directory", "directory/head", "relay/exit/dns"},                 // the policy
	"relay/exit/dns":      {"cell/contain"},
	"relay":               {"cell", "cell/*", "circuit", "circuit/*", "directory", "directory/*", "relay/exit"},
	"client/path":         {"cell", "directory"},
	"client/guard":        {"cell", "directory/strict"}, // its file
	"client/socks":        {"cell/contain"},             // a dialer comes in as a func
	"client/dns":          {"cell/contain"},             // a lookup does
	"client": {"cell", "cell/*", "circuit", "circuit/*", "directory", "directory/cache", "directory/strict",
		"client/*"},
	"testnet/story":     {},
	"testnet/villain":   {"cell"},
	"testnet/virtual":   {},
	"testnet/scenarios": {},
	"testnet/lab": {"cell", "cell/*", "circuit", "circuit/*", "directory", "directory/*", "relay", "relay/*", "client", "client/*",
		"testnet/bench", "testnet/memnet", "testnet/netns", "testnet/plan", "testnet/scenarios", "testnet/story", "testnet/villain"},
	"testnet/plan":             {"directory/strict"},
	"testnet/memnet":           {"cell/link/pipe"},
	"testnet/netns":            {"testnet/memnet"}, // its Way
	"testnet/bench":            {"cell", "cell/*", "circuit", "circuit/*", "directory", "directory/cache", "client/path"},
	"testnet":                  {"cell", "cell/*", "circuit", "circuit/*", "directory", "directory/*", "relay", "relay/*", "client", "client/*", "testnet/memnet", "testnet/plan", "testnet/story", "testnet/villain"},
	"cmd/peel":                 {"*"},
	"testnet/browser":          {},                                                            // for tests
	"cmd/peel/internal/admin":  {"cell/contain", "cmd/peel/internal/page", "directory/cache"}, // files that a crash does not break
	"cmd/peel/internal/page":   {"cell/contain", "directory/head"},
	"cmd/peel/internal/window": {"cmd/peel/internal/page", "testnet/story"},
	"cmd/peel/internal/sealed": {}, // bytes only
	"cmd/peel/internal/conf":   {"cell", "client/path", "cmd/peel/internal/admin", "directory", "directory/authority", "directory/strict", "relay/exit/dns", "testnet/plan"},
}

// forTests are packages that only tests import.
var forTests = []string{"cell/link/linktest", "cell/memtest", "cell/spintest", "directory/dirtest", "testnet/browser"}

// maxLines bounds a file: what is longer is two things.
const maxLines = 700

var badNames = []string{"util", "utils", "common", "helper", "helpers", "types", "misc"}

// parsers are the packages whose every exported Parse function must be fuzzed.
var parsers = []string{"cell", "directory", "client/guard", "client/socks", "testnet/plan"}

// source is one Go file.
type source struct {
	name string // from the top, with slashes
	dir  string // the package's folder, "." at the top; that of the parent for testdata
	test bool
	data bool // under testdata
	file *ast.File
	fset *token.FileSet
	text string
}

func sources(t *testing.T) []source {
	t.Helper()
	all, err := read()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("%d Go files found: is this the top of the module?", len(all))
	}
	return all
}

var read = sync.OnceValues(func() (all []source, err error) {
	fset := token.NewFileSet()
	err = filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if d.IsDir() && name != "." && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		if d.IsDir() || path.Ext(name) != ".go" {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, _, data := strings.Cut(path.Dir(name), "/testdata")
		all = append(all, source{name, dir, strings.HasSuffix(name, "_test.go"), data, f, fset, string(text)})
		return nil
	})
	return all, err
})

// packages are the sources by folder, without testdata and the top.
func packages(t *testing.T) map[string][]source {
	t.Helper()
	pkgs := map[string][]source{}
	for _, s := range sources(t) {
		if !s.data && s.dir != "." {
			pkgs[s.dir] = append(pkgs[s.dir], s)
		}
	}
	return pkgs
}

// Whoever reads an error is not told which package found it: testnet/story knows the names of all whose errors begin so.
func TestNamesOfPackagesAreNotForPeople(t *testing.T) {
	for dir, files := range packages(t) {
		name := path.Base(dir)
		begins := regexp.MustCompile(`(?:errors\.New|Errorf)\("` + name + `: `)
		if !slices.ContainsFunc(files, func(s source) bool { return !s.test && begins.MatchString(s.text) }) {
			continue
		}
		if got := story.Words(errors.New(name + ": no")); got != "no" {
			t.Errorf("an error of %s is told as %q: add it to rooms in testnet/story", dir, got)
		}
	}
}

func TestRooms(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !slices.Contains(rooms, e.Name()) {
			t.Errorf("%s/ is not a room of the house: see ARCHITECTURE.md", e.Name())
		}
		if !e.IsDir() && path.Ext(e.Name()) == ".go" && e.Name() != "house_test.go" {
			t.Errorf("%s: code lives in a room, not at the top", e.Name())
		}
	}
}

func allows(pkg, imported string) bool {
	for _, p := range mayImport[pkg] {
		below, ok := strings.CutSuffix(p, "*")
		if p == imported || ok && strings.HasPrefix(imported, below) {
			return true
		}
	}
	return false
}

func TestImports(t *testing.T) {
	for _, s := range sources(t) {
		if s.dir == "." {
			continue
		}
		if _, ok := mayImport[s.dir]; !ok {
			t.Errorf("%s: package %s is not in the table of imports", s.name, s.dir)
			continue
		}
		for _, i := range s.file.Imports {
			full, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			imported, ours := strings.CutPrefix(full, module+"/")
			if !ours {
				if full == module || strings.HasPrefix(full, ".") {
					t.Errorf("%s imports %q", s.name, full)
				}
				continue
			}
			tests := slices.Contains(forTests, imported)
			switch {
			case s.test && (tests || imported == s.dir):
			case path.Base(s.name) == "example_test.go" && imported == "testnet": // they run in a whole network
			case tests && !s.data:
				t.Errorf("%s imports %s, which is for tests", s.name, imported)
			case !allows(s.dir, imported):
				t.Errorf("%s: %s must not import %s", s.name, s.dir, imported)
			}
		}
	}
}

// A row without a package would allow what nobody has looked at.
func TestTheTableOfImportsHasNoOtherPackages(t *testing.T) {
	pkgs := packages(t)
	for pkg, imports := range mayImport {
		if pkgs[pkg] == nil {
			t.Errorf("there is no package %s", pkg)
		}
		for _, p := range imports {
			if !strings.HasSuffix(p, "*") && pkgs[p] == nil {
				t.Errorf("%s may import %s, which is not there", pkg, p)
			}
		}
	}
}

var quoted = regexp.MustCompile("`([^`]+)`")

func TestArchitectureShowsTheTableOfImports(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	names := func(cell string) (names []string) {
		for _, m := range quoted.FindAllStringSubmatch(cell, -1) {
			names = append(names, m[1])
		}
		slices.Sort(names)
		return names
	}
	_, table, _ := strings.Cut(string(text), "| room | imports |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	shown := map[string]bool{}
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		if len(cells) != 4 {
			t.Fatalf("a row of %d cells: %s", len(cells), row)
		}
		for _, pkg := range names(cells[1]) {
			want := slices.Sorted(slices.Values(mayImport[pkg]))
			if got := names(cells[2]); !slices.Equal(got, want) {
				t.Errorf("%s may import %v, but the page says %v", pkg, want, got)
			}
			shown[pkg] = true
		}
	}
	for pkg := range mayImport {
		if !shown[pkg] {
			t.Errorf("the page does not say what %s may import", pkg)
		}
	}
}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	for dir, files := range packages(t) {
		docs, code := 0, false
		for _, s := range files {
			if s.test {
				continue
			}
			code = true
			name := s.file.Name.Name
			if slices.Contains(badNames, name) || slices.Contains(badNames, path.Base(dir)) {
				t.Errorf("%s: a package is named by what it is, not %q", s.name, name)
			}
			if s.file.Doc == nil {
				continue
			}
			docs++
			want := "Package " + name + " "
			if name == "main" {
				want = "Command " + path.Base(dir) + " "
			}
			if doc := s.file.Doc.Text(); !strings.HasPrefix(doc, want) {
				t.Errorf("%s: the package's comment must begin with %q", s.name, want)
			}
		}
		if code && docs != 1 {
			t.Errorf("%s: %d files have a comment on the package; one must", dir, docs)
		}
	}
}

func TestNoFileIsTooLong(t *testing.T) {
	for _, s := range sources(t) {
		if n := strings.Count(s.text, "\n"); n > maxLines {
			t.Errorf("%s: %d lines; at most %d", s.name, n, maxLines)
		}
	}
}

// declared are a package's functions, methods and variables by name, with the names that each uses.
// Methods of one name count as one: the check is the milder for it.
func declared(files []source) map[string][]string {
	uses := map[string][]string{}
	add := func(name string, n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				uses[name] = append(uses[name], id.Name)
			}
			return true
		})
	}
	for _, s := range files {
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Body != nil {
					add(d.Name.Name, d.Body)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if v, ok := spec.(*ast.ValueSpec); ok {
						for _, name := range v.Names {
							add(name.Name, v)
						}
					}
				}
			}
		}
	}
	return uses
}

// reached are the names that a function uses, by way of others too.
func reached(uses map[string][]string, from string) map[string]bool {
	seen, todo := map[string]bool{}, []string{from}
	for len(todo) > 0 {
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[name] {
			continue
		}
		seen[name] = true
		todo = append(todo, uses[name]...)
	}
	return seen
}

// functions are the names of the functions (not methods) that begin so.
func functions(files []source, prefix string, test bool) (names []string) {
	for _, s := range files {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && s.test == test && strings.HasPrefix(f.Name.Name, prefix) {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names
}

func TestParsersAreFuzzed(t *testing.T) {
	pkgs := packages(t)
	for _, dir := range parsers {
		files := pkgs[dir]
		uses, fuzzed := declared(files), map[string]bool{}
		fuzz := functions(files, "Fuzz", true)
		for _, f := range fuzz {
			for name := range reached(uses, f) {
				fuzzed[name] = true
			}
		}
		if len(fuzz) == 0 {
			t.Errorf("%s: no fuzz test", dir)
		}
		for _, p := range functions(files, "Parse", false) {
			if !fuzzed[p] {
				t.Errorf("%s: no fuzz test reaches %s", dir, p)
			}
		}
	}
}

func TestFuzzTestsHaveSeeds(t *testing.T) {
	n := 0
	for dir, files := range packages(t) {
		var tests []source
		for _, s := range files {
			if s.test {
				tests = append(tests, s)
			}
		}
		uses := declared(tests)
		for _, f := range functions(tests, "Fuzz", true) {
			n++
			kept, _ := filepath.Glob(filepath.Join(filepath.FromSlash(dir), "testdata", "fuzz", f, "*"))
			if !reached(uses, f)["Add"] && len(kept) == 0 {
				t.Errorf("%s: %s has no seed", dir, f)
			}
		}
	}
	if n == 0 {
		t.Error("no fuzz test was found: the check is broken")
	}
}

var specPage = regexp.MustCompile(`\bspec/[\w./-]+\.\w+`)

func TestCitedPagesExist(t *testing.T) {
	n := 0
	for _, s := range sources(t) {
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				for _, page := range specPage.FindAllString(c.Text, -1) {
					n++
					if _, err := os.Stat(filepath.FromSlash(page)); err != nil {
						t.Errorf("%s: there is no %s", s.fset.Position(c.Pos()), page)
					}
				}
			}
		}
	}
	if n == 0 {
		t.Error("no page is cited: the check is broken")
	}
}

// begins says whether a call begins a goroutine that no panic may leave: a sync.WaitGroup's or errgroup's Go, or an AfterFunc. That of a
// contain.Group has two arguments.
func begins(c *ast.CallExpr) bool {
	sel, ok := c.Fun.(*ast.SelectorExpr)
	return ok && (sel.Sel.Name == "AfterFunc" || sel.Sel.Name == "Go" && len(c.Args) == 1)
}

// uncontained are the networks that are made to find bugs: there one ends the program. The nodes in them are as everywhere.
var uncontained = []string{"testnet", "testnet/lab", "testnet/memnet", "testnet/netns", "cell/link/pipe"}

// A panic in a goroutine that nobody guards ends the program, and with it every circuit.
func TestEveryGoroutineIsContained(t *testing.T) {
	const room, points = "cell/contain", "Arm"
	n := 0
	for _, s := range sources(t) {
		if s.test || s.data || slices.Contains(forTests, s.dir) || slices.Contains(uncontained, s.dir) {
			continue
		}
		ast.Inspect(s.file, func(x ast.Node) bool {
			switch x := x.(type) {
			case *ast.GoStmt:
				if n++; s.dir != room {
					t.Errorf("%s: a goroutine begins with contain.Go, or in a contain.Group", s.fset.Position(x.Pos()))
				}
			case *ast.CallExpr:
				if s.dir != room && begins(x) {
					t.Errorf("%s: a goroutine begins in a contain.Group, or with contain.After or contain.OnDone", s.fset.Position(x.Pos()))
				}
				if sel, ok := x.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == points {
					if of, ok := sel.X.(*ast.Ident); ok && of.Name == "contain" {
						t.Errorf("%s: only tests arm points", s.fset.Position(x.Pos()))
					}
				}
			}
			return true
		})
	}
	if n == 0 {
		t.Errorf("no goroutine begins in %s: the check is broken", room)
	}
}
