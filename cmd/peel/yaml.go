package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// table is a table of YAML, in order.
type table []entry

type entry struct {
	key   string
	value any // a table, a []any, a string, an int or a bool
}

// yamlText writes a table as YAML. Texts are in double quotes, so that none is taken for something else.
func yamlText(t table) string { return strings.Join(yamlLines(t), "\n") + "\n" }

func yamlLines(v any) (lines []string) {
	switch v := v.(type) {
	case table:
		for _, e := range v {
			switch below := yamlLines(e.value); {
			case isScalar(e.value):
				lines = append(lines, e.key+": "+below[0])
			default:
				lines = append(lines, e.key+":")
				for _, l := range below {
					lines = append(lines, "  "+l)
				}
			}
		}
	case []any:
		for _, item := range v {
			for i, l := range yamlLines(item) {
				lines = append(lines, [...]string{"- ", "  "}[min(i, 1)]+l)
			}
		}
	case string:
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.Encode(v) // a text of JSON is one of YAML
		lines = []string{strings.TrimSuffix(b.String(), "\n")}
	default:
		lines = []string{fmt.Sprint(v)}
	}
	return lines
}

func isScalar(v any) bool {
	switch v.(type) {
	case table, []any:
		return false
	}
	return true
}

// texts is a list of texts.
func texts(list ...string) (all []any) {
	for _, s := range list {
		all = append(all, s)
	}
	return all
}
