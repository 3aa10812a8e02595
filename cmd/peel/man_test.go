package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Every verb has a page that readers of manuals can read, the same each time.
func TestManual(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"a", "b"} {
		if err := writeManual(root(), filepath.Join(dir, d), "2026-01-01"); err != nil {
			t.Fatal(err)
		}
	}
	pages, err := filepath.Glob(filepath.Join(dir, "a", "*.1"))
	if err != nil || len(pages) < 25 {
		t.Fatalf("%d pages: %v", len(pages), err)
	}
	var names []string
	for _, page := range pages {
		text := mustRead(t, page)
		again, err := os.ReadFile(filepath.Join(dir, "b", filepath.Base(page)))
		if err != nil || !bytes.Equal(text, again) {
			t.Errorf("%s: another text the second time (%v)", page, err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") && !strings.ContainsAny(line[1:2], "TSPBfn") {
				t.Errorf("%s: %q is no macro", page, line)
			}
		}
		names = append(names, strings.TrimSuffix(filepath.Base(page), ".1"))
	}
	for _, want := range []string{"peel", "peel-relay", "peel-keys-rotate", "peel-init-relay", "peel-doctor"} {
		if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+want+" ") {
			t.Errorf("there is no page %s", want)
		}
	}
	relay := mustRead(t, filepath.Join(dir, "a", "peel-relay.1"))
	for _, want := range []string{".TH PEEL\\-RELAY 1 2026-01-01 ", ".SH NAME\npeel\\-relay \\- Run a relay\n", "\n.B \\-c, \\-\\-config file\n", ".SH EXAMPLES\n", ".BR peel (1)\n"} {
		if !strings.Contains(string(relay), want) {
			t.Errorf("peel-relay.1 has no %q:\n%s", want, relay)
		}
	}
	testnet, err := os.ReadFile(filepath.Join(dir, "a", "peel-testnet.1"))
	if err != nil || !strings.Contains(string(testnet), "\ndirectory authorities (default 5)\n") || !strings.Contains(string(testnet), "\n.B peel testnet run\n") || !strings.Contains(string(testnet), "\n.B 130, 143\n") {
		t.Errorf("peel-testnet.1 does not say the verbs below it, what is usual, or the statuses (%v):\n%s", err, testnet)
	}
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		t.Skip("the pages are not linted: no mandoc here")
	}
	out, err := exec.Command(mandoc, append([]string{"-T", "lint", "-W", "warning"}, pages...)...).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("mandoc finds fault: %v\n%s", err, out)
	}
}

// A service's configuration is where its manager says, if nobody says otherwise.
func TestConfigurationOfAService(t *testing.T) {
	etc, lib := t.TempDir(), t.TempDir()
	t.Setenv("CONFIGURATION_DIRECTORY", etc)
	t.Setenv("STATE_DIRECTORY", lib+":/other")
	if s := usualConfig("relay"); s != "" {
		t.Errorf("there is none, and it says %s", s)
	}
	for _, dir := range []string{lib, etc} {
		path := filepath.Join(dir, "relay.toml")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if s := usualConfig("relay"); s != path {
			t.Errorf("it says %q, not %s", s, path)
		}
	}
	c := relayCommand()
	if f := c.Flags().Lookup("config"); f.DefValue != filepath.Join(etc, "relay.toml") {
		t.Errorf("peel relay takes %q", f.DefValue)
	}
	t.Setenv("CONFIGURATION_DIRECTORY", "")
	t.Setenv("STATE_DIRECTORY", "")
	if s := usualConfig("relay"); s != "" {
		t.Errorf("nobody says where, and it says %s", s)
	}
}
