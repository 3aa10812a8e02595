package strict

import (
	"slices"
	"strconv"
	"strings"
)

// lineAt is the line of a key as At takes it, or 0.
func lineAt(text, key string) int {
	table, name := "", key
	if i := strings.LastIndexByte(key, '.'); i >= 0 {
		table, name = key[:i], key[i+1:]
	}
	t, number, ok := strings.Cut(table, "[")
	if !ok {
		return lineOf(text, table, name)
	}
	number, _, _ = strings.Cut(number, "]")
	n, _ := strconv.Atoi(number)
	if line := LineIn(text, t, n, name); line > 0 {
		return line
	}
	return lineOf(text, "", t) // tables in one line
}

// LineIn returns the line of a key in the nth of several tables, counted from 0, or that on which the table begins, or 0.
func LineIn(text, table string, nth int, name string) int {
	n, begin := 0, 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			if begin > 0 {
				return begin
			}
			if in, _, _ := strings.Cut(line, "#"); strings.Trim(in, "[] \t") == table {
				if nth == 0 {
					begin = n
				}
				nth--
			}
		}
		if k, _, ok := strings.Cut(line, "="); begin > 0 && ok && name != "" && strings.Trim(strings.TrimSpace(k), `"'`) == name {
			return n
		}
	}
	return begin
}

// lineOf returns the first line of a table on which a key or a table of that name is set, or 0.
func lineOf(text, table, name string) int {
	in, n := "", 0
	full := strings.TrimPrefix(table+"."+name, ".")
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			in, _, _ = strings.Cut(strings.Trim(line, "[] "), "]")
			if in == full || strings.HasPrefix(in, full+".") {
				return n
			}
			continue
		}
		k, _, ok := strings.Cut(line, "=")
		k = strings.Trim(strings.TrimSpace(k), `"'`)
		k = strings.TrimPrefix(in+"."+k, ".")
		if ok && (k == full || strings.HasPrefix(k, full+".")) {
			return n
		}
	}
	return 0
}

// Keys are the names that a text sets at its top, however broken it is: of tables after [, of several of a name after [[.
func Keys(text []byte) (names []string) {
	top := true
	for line := range strings.Lines(string(text[:min(len(text), MostBytes)])) {
		name := keyOf(line)
		if m := heading.FindStringSubmatch(line); m != nil {
			top = false
			name = m[1]
			if !strings.Contains(name, ".") {
				name = "[" + name
			}
			if strings.HasPrefix(strings.TrimSpace(line), "[[") {
				name = "[" + name
			}
		} else if !top || name == "" {
			continue
		}
		if name, _, _ = strings.Cut(name, "."); !slices.Contains(names, name) && len(names) < mostKeys {
			names = append(names, name)
		}
	}
	return names
}

// mostKeys is how many names of keys Keys gives: more than any file has.
const mostKeys = 1000
