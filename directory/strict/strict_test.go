package strict

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

type file struct {
	Name  string   `toml:"name"`
	Port  int      `toml:"port"`
	List  []string `toml:"list"`
	Limit limits   `toml:"limit"`
	Node  []node   `toml:"node"`
}

// What stands in a table whose name is in the wrong brackets is looked at all the same.
func TestABrokenHeadingHidesNothing(t *testing.T) {
	for _, c := range []struct{ heading, meant string }{
		{"[limit", "[limit]"}, {"[limit]]", "[limit]"}, {"[[limit]", "[limit]"}, {"limit]", "[limit]"}, {" [ limit # of all", "[limit]"},
		{"[[node", "[[node]]"}, {"[node]]", "[[node]]"}, {"[[node]", "[[node]]"}, {"node]]", "[[node]]"},
	} {
		text := "port = \"x\"\n" + c.heading + "\nbogus = 1\n[limit2]\n"
		err := Decode([]byte(text), new(file))
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v", c.heading, err)
			continue
		}
		var told []string
		for _, m := range e.All() {
			told = append(told, m.Error())
		}
		want := []string{"line 1: port: must be", "line 2: the name of a table must stand in brackets: write " + c.meant, `line 3: there is no key "bogus"`, `line 4: there is no key "limit2"`}
		if !slices.EqualFunc(told, want, strings.HasPrefix) {
			t.Errorf("%s:\n%s", c.heading, strings.Join(told, "\n"))
		}
	}
}

type limits struct {
	Rate int `toml:"rate"`
}

type node struct {
	Address string `toml:"address"`
}

func TestMistakesSayWhereAndWhat(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown key", "name = \"a\"\nprot = 3\n", `line 2: there is no key "prot"; did you mean "port"?`},
		{"unknown table", "name = \"a\"\n\n[limits]\nrate = 3\n", `line 3: there is no key "limits"; did you mean "limit"?`},
		{"unknown key in a table", "[limit]\nrat = 3\n", `line 2: there is no key "rat"; did you mean "rate"?`},
		{"unknown key, dotted", "limit.rat = 3\n", `line 1: there is no key "rat"; did you mean "rate"?`},
		{"unknown key in a list of tables", "[[node]]\naddress = \"x\"\n[[node]]\nadress = \"y\"\n", `line 4: there is no key "adress"; did you mean "address"?`},
		{"a value where a table should be", "limit = 3\n", "line 1: limit: must be a table, and there is one: write [limit]"},
		{"several where there is one", "[[limit]]\nrate = 1\n", "line 1: limit: must be a table, and there is one: write [limit]"},
		{"table where a value should be", "[name.deep]\nx = 1\n", "line 1: "},
		{"wrong kind", "name = \"a\"\nport = \"x\"\n", "line 2: "},
		{"twice", "name = \"a\"\nname = \"b\"\n", "line 2: "},
		{"no TOML", "name = \n", "line 1: "},
		{"long key", strings.Repeat("x", 1000) + " = 1\n", "…"},
		{"too long", strings.Repeat("#", MostBytes+1), "at most 1048576 are allowed"},
	} {
		var f file
		err := Decode([]byte(c.text), &f)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestWhatIsLeftOutKeepsItsValue(t *testing.T) {
	f := file{Port: 7, Limit: limits{Rate: 9}}
	if err := Decode([]byte("name = \"a\"\nlist = [\"x\"]\n"), &f); err != nil {
		t.Fatal(err)
	}
	if f.Name != "a" || f.Port != 7 || f.Limit.Rate != 9 || len(f.List) != 1 {
		t.Fatalf("%+v", f)
	}
}

func TestAtFindsTheLine(t *testing.T) {
	text := []byte("# port = 1\nname = \"a\"\nport = 99999\n[limit]\nrate = -1\n")
	if err := At(text, "port", errors.New("too large")); err.Error() != "line 3: port: too large" {
		t.Error(err)
	}
	if err := At(text, "limit.rate", errors.New("negative")); err.Error() != "line 5: limit.rate: negative" {
		t.Error(err)
	}
	if err := At(text, "list", errors.New("empty")); err.Error() != "list: empty" {
		t.Error(err)
	}
	if At(text, "port", nil) != nil {
		t.Error("an error out of none")
	}
}

func TestCapitalLettersAreOthers(t *testing.T) {
	for range 20 { // two such keys would be taken in any order
		if err := Decode([]byte("name = \"a\"\nName = \"b\"\n"), new(file)); err == nil || !strings.Contains(err.Error(), `no key "Name"`) {
			t.Fatal(err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"name = \"a\"\nport = 3\n", "[limit]\nrate = 3\n", "[[node]]\naddress = \"x\"\nx.y = 1\n", "a.b.c = 1", "\"\" = 1", "[a.\"b.c\"]\n",
		"name = \"a\"\nName = \"b\"\n", "nam = foo\nport = 20 MB\nlist = here\n", "[limit\nrate = 1\n", "[node]\naddress = 1\n", "limit = {rate = 1}\n", "list = [\n \"a\",\n  b]\n",
		"name = \"\"\"a\n\"\"\"\nport = \"x\"\n", "name = \"a\nport = \n", "name = \"\xff\"\n", "name = \"C:\\keys\"\n", "name = 'a' b\n", strings.Repeat("x = 1\n", MostTold+2), "port = 1e400\n", "foo\nbar\n\n", "x = 1\nport = foo\n", strings.Repeat("a.", 200) + "a = 1\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var x, y file
		err := Decode(text, &x)
		if again := Decode(text, &y); fmt.Sprint(err) != fmt.Sprint(again) || fmt.Sprint(x) != fmt.Sprint(y) {
			t.Fatalf("%v, %v\nthe second time\n%v, %v", x, err, y, again)
		}
		if err == nil {
			return
		}
		all := err.(*Error).All()
		if len(all) > MostTold+1 {
			t.Fatalf("%d mistakes", len(all))
		}
		for i, e := range all {
			if e.Text == "" || e.Line < 0 || e.Line > 1+bytes.Count(text, []byte("\n")) || i > 0 && e.Line > 0 && e.Line < all[i-1].Line {
				t.Fatalf("%d of %d, line %d: %q", i+1, len(all), e.Line, e.Text)
			}
		}
	})
}

// The library takes the square of the number of a key's parts, and of tables in tables: such a file is refused at once.
func TestDeepKeysAreRefusedAtOnce(t *testing.T) {
	for name, line := range map[string]string{
		"dots":          strings.Repeat("a.", 1<<18) + "a = 1",
		"quoted parts":  strings.Repeat(`"a\"".'#'.`, 1<<16) + "a = 1",
		"a heading":     "[" + strings.Repeat("a.", 1<<18) + "a]",
		"tables":        "limit = " + strings.Repeat("{a = ", 1<<17),
		"lists":         "list = " + strings.Repeat("[", 1<<18),
		"behind a text": `"""#""", ` + strings.Repeat("a.", 1<<18),
	} {
		err := Decode([]byte("name = \"x\"\n"+line+"\n"), new(file))
		if err == nil || !strings.HasPrefix(err.Error(), "line 2: more than 100 dots") {
			t.Errorf("%s: %.100v", name, err)
		}
	}
	level := "{b = \"\"\"\n]}\"\"\"\"\", a = [ # ]}\n"
	if err := Decode([]byte("limit = "+strings.Repeat(level, 9000)), new(file)); err == nil || !strings.HasPrefix(err.Error(), "line 17: more than 100 dots") {
		t.Errorf("tables in each other, each on lines of its own: %.100v", err)
	}
	if err := Decode([]byte("name = x \"\"\"\nlimit = "+strings.Repeat("{a = [\n", 9000)), new(file)); err == nil || !strings.Contains(fmt.Sprint(err.(*Error).All()), "more than 100 dots") {
		t.Errorf("in a text in quotes that is none: %.100v", err)
	}
	many := strings.Repeat(`"192.0.2.1", '[', `, 1000)
	if err := Decode([]byte("list = ["+many+"] # "+strings.Repeat(".", 200)), new(file)); err != nil {
		t.Errorf("a long list of texts: %v", err)
	}
}

func TestAllMistakesAreTold(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"nam = \"a\"\nport = \"x\"\nlist = 3\n[limit]\nrat = 1\n[[node]]\nadress = 1\n[[node]]\nadress = 2\naddress = 3\n", []string{
			`line 1: there is no key "nam"; did you mean "name"?`, "line 2: port: must be a whole number, but is a text in quotes",
			"line 3: list: must be a list, but is a whole number", `line 5: there is no key "rat"; did you mean "rate"?`,
			`line 7: there is no key "adress"; did you mean "address"?`, `line 9: there is no key "adress"; did you mean "address"?`,
			"line 10: node: address: must be a text in quotes, but is a whole number",
		}},
		{"x = 1\ny = 2\n", []string{`line 1: there is no key "x": there are limit, list, name, node, port`, `line 2: there is no key "y": there are limit, list, name, node, port`}},
		{"name = 1\n", []string{"line 1: name: must be a text in quotes, but is a whole number"}},
		{"name = foo\nprot = 1\nport = 20 MB/s\nlist = here\n[limit]\nrate = much\nrat = 1\n", []string{
			`line 1: name: put it in quotes: name = "foo"`, `line 2: there is no key "prot"; did you mean "port"?`,
			"line 3: port: must be a whole number, without anything else", `line 4: list: must be a list of texts in quotes: list = ["here"]`,
			"line 6: limit.rate: must be a whole number, without anything else", `line 7: there is no key "rat"; did you mean "rate"?`,
		}},
		{"name = \"a\nport = \nport\nlist = [\n  \"x\",\nport = \"x\"\n[[node]]\naddress = 'y' z\n[limit\nrate = 1\n[node]\n", []string{
			"line 1: name: the closing quotation mark is missing", "line 2: port: a value is missing after the =",
			"line 3: this is neither key = value nor the name of a table in brackets", "line 4: list: the list that begins here does not end: a ] is missing",
			"line 6: port: must be a whole number, but is a text in quotes", "line 8: node: address: what stands after the closing quotation mark does not belong there",
			"line 9: the name of a table must stand in brackets", "line 11: the name of a table must stand in brackets: write [[node]]",
		}},
		{"name = \"a\"\nname = \"b\"\nnam = c\n[node]\nadress = \"x\"\n", []string{
			"line 2: name: it is given twice, in line 1 for the first time", `line 3: there is no key "nam"; did you mean "name"?`, "line 4: node: there may be several: write [[node]], with two brackets on each side",
		}},
		{"port = 1\n[[node]]\naddress = \"x\"\n[[node]]\naddress = \"y\"\nport = 2\naddress = \"z\"\nname = \"a\"\n", []string{
			`line 6: there is no key "port" here; there is one above the first table`, "line 7: node: address: it is given twice, in line 5 for the first time",
			`line 8: there is no key "name" here; there is one above the first table`,
		}},
		{"address = \"x\"\nrate = 1\n", []string{`line 1: there is no key "address" here; there is one below [[node]]`, `line 2: there is no key "rate" here; there is one below [limit]`}},
		{"list = [\n  \"a\",\n  limit]\nport = \"x\"\n", []string{"line 3: list: its texts must be in quotes", "line 4: port: must be a whole number"}},
		{"[ limit ]\nrate = 1\n[ limit ]\nrate = 2\n", []string{"line 3: the table [limit] is there twice"}},
		{"name = \"\"\"a\nport = \"x\"\n", []string{"line 1: name: the text that begins here with three quotation marks does not end with three"}},
		{"name = \"C:\\keys\"\nport = [1,\n2 3]\nlist = [a, b]\n", []string{
			`line 1: name: a \ has a meaning of its own there: write \\ for \`, "line 3: port: the list does not come out right", `line 4: list: its texts must be in quotes, with commas`,
		}},
		{"name = “a”\nName = \"b\"\n", []string{`line 1: name: put it in quotes: name = "a"`, `line 2: there is no key "Name"; did you mean "name"?`}},
		{"name = \"a\"\nname = \"\xff\"\nx = 1\n", []string{"line 2: this is not text in UTF-8"}},
		{"nmae = 1\nfoo bar\n", []string{`line 1: there is no key "nmae"; did you mean "name"?`, "line 2: this is neither key = value nor the name of a table in brackets"}},
	} {
		err := Decode([]byte(c.text), new(file))
		var e *Error
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		got := []string{e.Error()}
		for _, m := range e.More {
			got = append(got, m.Error())
		}
		if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
			t.Errorf("%s\ngot\n%s\nwant\n%s", c.text, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
}

func TestSoManyMistakesAreToldAtOnce(t *testing.T) {
	var b strings.Builder
	for i := 0; b.Len() < MostBytes/16; i++ {
		fmt.Fprintf(&b, "x%d = 1\n", i)
	}
	var e *Error
	if err := Decode([]byte(b.String()), new(file)); !errors.As(err, &e) || e.Line != 1 || len(e.More) != MostTold || !strings.HasPrefix(e.More[MostTold-1].Text, "and more") {
		t.Errorf("%v, and %d more", err, len(e.More))
	}
}
