package lab

import (
	"os"
	"slices"
	"strings"
	"testing"

	"peel/testnet/plan"
	"peel/testnet/scenarios"
)

// quick are the scenarios that run with the quick tests.
var quick = []string{"first-page.toml"}

func TestScenarios(t *testing.T) {
	files, err := scenarios.Files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 15 {
		t.Fatalf("%d scenarios", len(files))
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(f.Name(), ".toml"), func(t *testing.T) {
			text, err := scenarios.Files.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			p, err := plan.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(quick, f.Name()) && os.Getenv("PEEL_SLOW") == "" {
				t.Skip("needs some seconds of CPU: set PEEL_SLOW=1 to run it")
			}
			if r := virtual(t, p); !r.OK() {
				t.Error(r)
			} else {
				t.Log(r)
			}
		})
	}
}
