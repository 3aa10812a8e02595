package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// fullDisk is where what a command prints cannot go; by then another program has put a file into its folder.
type fullDisk string

func (dir fullDisk) Write([]byte) (int, error) {
	return 0, errors.Join(errDiskFull, os.WriteFile(filepath.Join(string(dir), "theirs"), nil, 0o600))
}

var errDiskFull = errors.New("no space is left")

// A folder that could not be finished is left as it was, but for what others put there.
func TestAnUnfinishedFolderIsTakenAway(t *testing.T) {
	net := filepath.Join(t.TempDir(), "net")
	if out, status := peel(t, "init", "network", net, "--authorities", "1", "--relays", "3", "--exits", "1"); status != 0 {
		t.Fatal(out)
	}
	network := filepath.Join(net, "network.toml")
	t.Setenv("PEEL_PASSPHRASE", "correct horse battery")
	for _, args := range [][]string{
		{"init", "network", "--authorities", "1", "--relays", "3", "--exits", "1"},
		{"init", "authority", "--nickname", "Boss", "--advertise", "192.0.2.1:9001", "--identity-here"},
		{"init", "relay", "--network", network, "--nickname", "Fennel", "--advertise", "192.0.2.1:9001", "--offline"},
		{"init", "client", "--network", network},
		{"testnet", "export", "--compose", "--authorities", "1", "--relays", "3"},
		{"testnet", "export", "--kubernetes", "--authorities", "1", "--relays", "3"},
		{"testnet", "export", "--systemd", "--host", "192.0.2.1,192.0.2.2", "--authorities", "1", "--relays", "3"},
	} {
		dir := t.TempDir()
		c := root()
		c.SetOut(fullDisk(dir))
		c.SetErr(io.Discard)
		c.SetArgs(append(args, dir))
		if err := c.ExecuteContext(t.Context()); !errors.Is(err, errDiskFull) {
			t.Errorf("%v: %v", args, err)
		}
		left, err := os.ReadDir(dir)
		if err != nil || len(left) != 1 || left[0].Name() != "theirs" {
			t.Errorf("%v: leaves %v (%v)", args, left, err)
		}
	}
}
