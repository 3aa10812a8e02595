package lab

import (
	"slices"
	"testing"

	"peel/testnet/plan"
	"peel/testnet/scenarios"
)

// Every script that docs/testnet.md names is in a scenario, which says what is to come of it.
func TestEveryScriptHasAScenario(t *testing.T) {
	files, err := scenarios.Files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string][]string)
	for _, f := range files {
		text, err := scenarios.Files.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		p, err := plan.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", f.Name(), err)
		}
		for _, v := range p.Villains {
			role, _ := p.RoleOf(v.Node)
			seen[role] = append(seen[role], v.Script)
			if !slices.Contains(once, v.Script) && p.Expect.Deeds == 0 {
				t.Errorf("%s: whether %s does anything (%s) is not looked at", f.Name(), v.Node, v.Script)
			}
		}
	}
	for role, scripts := range plan.Scripts {
		for _, s := range scripts {
			if !slices.Contains(seen[role], s) {
				t.Errorf("no scenario has a %s that is to %s", role, s)
			}
		}
	}
}
