package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The units that we ship are hardened, and run commands that there are.
func TestUnitsForSystemd(t *testing.T) {
	units, err := filepath.Glob("../../packaging/systemd/*.service")
	if err != nil || len(units) != 3 {
		t.Fatalf("units %v, %v", units, err)
	}
	analyze, missing := exec.LookPath("systemd-analyze")
	for _, unit := range units {
		text := mustRead(t, unit)
		for _, m := range regexp.MustCompile(`(?m)^Exec\w+=/usr/bin/peel (.*)$`).FindAllStringSubmatch(string(text), -1) {
			c, rest, err := root().Find(strings.Fields(m[1]))
			if err == nil {
				err = c.ParseFlags(rest)
			}
			if err != nil || c == root() {
				t.Errorf("%s: peel %s: %v", unit, m[1], err)
			}
		}
		// What a command before the node says of the configuration does not keep it from being started again and again.
		if strings.Contains(string(text), "\nExecStartPre=") || !strings.Contains(string(text), "\nRestartPreventExitStatus=2\n") {
			t.Errorf("%s: a wrong configuration is tried again every few seconds", unit)
		}
		// An exit, which must not connect to its own machine, and a client, which sees that the machine has moved, ask for its addresses.
		asks := regexp.MustCompile(`(?m)^RestrictAddressFamilies=.*\bAF_NETLINK\b`).Match(text)
		if authority := strings.Contains(unit, "authority"); asks == authority {
			t.Errorf("%s: may it ask which addresses the machine has: %v", unit, asks)
		}
		// The length of the queue of those who wait to be accepted is in /proc/sys.
		if hidden := regexp.MustCompile(`(?m)^ProcSubset=pid`).Match(text); hidden && !strings.Contains(unit, "client") {
			t.Errorf("%s: hides how many may wait to be accepted", unit)
		}
		if missing != nil {
			continue
		}
		out, err := exec.Command(analyze, "security", "--offline=true", unit).CombinedOutput()
		m := regexp.MustCompile(`exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
		if m == nil {
			t.Skipf("systemd-analyze does not say how exposed a unit is: %v %s", err, out)
		}
		if score, err := strconv.ParseFloat(string(m[1]), 64); err != nil || score > 1.5 {
			t.Errorf("%s: exposed by %s, more than 1.5 (%v)", unit, m[1], err)
		}
	}
	if got, want := taken(t, exportedUnit), taken(t, string(mustRead(t, "../../packaging/systemd/peel-relay.service"))); !slices.Equal(got, want) {
		t.Errorf("the units of an exported network do not take from nodes what a relay's does:\n%q\n%q", got, want)
	}
	if missing != nil {
		t.Skip("how exposed the units are is not known here: no systemd-analyze")
	}
}

// taken is all that a unit takes from its process.
func taken(t *testing.T, unit string) (lines []string) {
	_, rest, ok := strings.Cut(unit, "\nCapabilityBoundingSet=")
	rest, _, ok2 := strings.Cut(rest, "\n[Install]")
	if !ok || !ok2 {
		t.Fatalf("a unit without rights to take: %s", unit)
	}
	for l := range strings.Lines(rest) {
		if l = strings.TrimSpace(l); l != "" && l[0] != '#' {
			lines = append(lines, l)
		}
	}
	return lines
}
