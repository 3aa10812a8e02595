package conf

import (
	"strings"
	"testing"
)

// What is wrong with a plan is said, though it is one.
func TestMistakesOfPlansAreTold(t *testing.T) {
	for text, want := range map[string]string{
		"seed = -1\n":            "seed",
		"weather = \"horrid\"\n": "horrid",
		"[relays]\ncount = 2\n":  "relays",
		"[[event]]\nat = \"1m\"\ndo = \"kil\"\nnode = \"relay1\"\n": "kil",
	} {
		_, err := ParsePlan("s.toml", []byte(text))
		if err == nil || strings.Contains(err.Error(), "this is a plan") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
