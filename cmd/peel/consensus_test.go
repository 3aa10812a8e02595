package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peel/directory"
	"peel/directory/dirtest"
)

// peel runs a command line in this process and returns what it printed and its exit status.
func peel(t *testing.T, args ...string) (string, int) {
	t.Helper()
	c := root()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	var status *exitError
	var usage *usageError
	switch {
	case err == nil:
		return out.String(), 0
	case errors.As(err, &status):
		return out.String(), status.code
	case errors.As(err, &usage):
		return out.String() + err.Error(), 2
	}
	return out.String() + err.Error(), 1
}

// consensusFiles writes a network file and two consensuses of it, an hour apart, the later one as a client's state folder has it.
func consensusFiles(t *testing.T) (n *dirtest.Net, network, before, state string) {
	t.Helper()
	n = dirtest.New(1, 30, dirtest.At(time.Now().Add(-90*time.Minute).Truncate(time.Second)), dirtest.Params(directory.Params{"new-thing": 7}))
	text, err := n.Network.Encode()
	if err != nil {
		t.Fatal(err)
	}
	_, after := n.Churn(2, n.Consensus, 0.1)
	dir := t.TempDir()
	network, before, state = filepath.Join(dir, "network.toml"), filepath.Join(dir, "before"), filepath.Join(dir, "client")
	if err := os.MkdirAll(filepath.Join(state, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{network: text, before: n.Text, filepath.Join(state, "state", "consensus"): after} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return n, network, before, state
}

func TestConsensusShow(t *testing.T) {
	n, _, before, state := consensusFiles(t)
	out, code := peel(t, "consensus", "show", before)
	for _, want := range []string{n.Consensus.Header.Digest().String(), "new-thing = 7", "30, together", "  Guard       15\n", "  Exit        10\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if code != 0 || strings.Contains(out, "relay7") {
		t.Errorf("status %d:\n%s", code, out)
	}
	var s consensusShown
	if out, code = peel(t, "consensus", "show", before, "--json", "--flag", "Exit", "--flag", "Guard"); code != 0 || json.Unmarshal([]byte(out), &s) != nil {
		t.Fatalf("status %d:\n%s", code, out)
	}
	if len(s.Listed) != 5 || s.Flags["Exit"] != 10 || s.Relays != 30 {
		t.Errorf("%d relays are both exits and guards: %+v", len(s.Listed), s)
	}
	if out, _ := peel(t, "consensus", "show", before, "--relay", "relay7"); strings.Count(out, "relay7 ") != 1 || !strings.Contains(out, "accept *:80, accept *:443") || strings.Count(out, "\n") != 1 {
		t.Errorf("by nickname:\n%s", out)
	}
	if out, _ := peel(t, "consensus", "show", before, "--relay", n.Relays[3].Descriptor.ID.String()[:10]); !strings.Contains(out, n.Relays[3].Descriptor.Nickname) {
		t.Errorf("by identity:\n%s", out)
	}
	if out, code := peel(t, "consensus", "show", state, "--relays"); code != 0 || strings.Count(out, "new") < 3 {
		t.Errorf("of a folder: status %d\n%s", code, out)
	}
	for _, c := range []struct {
		code int
		args []string
	}{
		{2, []string{before, "--flag", "Quick"}}, {2, nil}, {2, []string{before, state}}, {2, []string{before + "x"}}, {1, []string{t.TempDir()}},
		{2, []string{"--network", before + "x"}}, {1, []string{before, "--relay", "nobody"}},
	} {
		if out, code := peel(t, append([]string{"consensus", "show"}, c.args...)...); code != c.code {
			t.Errorf("%v: status %d instead of %d\n%s", c.args, code, c.code, out)
		}
	}
}

func TestConsensusDiff(t *testing.T) {
	_, _, before, state := consensusFiles(t)
	out, code := peel(t, "consensus", "diff", before, state)
	if code != 1 || !strings.Contains(out, "3 dropped, 3 added, 3 changed; the diff has ") || strings.Count(out, "\n- ") != 3 || !strings.Contains(out, "bandwidth: ") {
		t.Errorf("status %d\n%s", code, out)
	}
	var d diffShown
	if out, code = peel(t, "consensus", "diff", before, state, "--json"); code != 1 || json.Unmarshal([]byte(out), &d) != nil {
		t.Fatalf("status %d\n%s", code, out)
	}
	if len(d.Dropped) != 3 || len(d.Added) != 3 || len(d.Changed) != 3 || len(d.Changed[0].Fields) != 2 || d.Header["valid_after"][0] == nil || d.Bytes >= d.Whole {
		t.Errorf("%+v", d)
	}
	if out, code = peel(t, "consensus", "diff", before, before); code != 0 || !strings.HasPrefix(out, "0 dropped, 0 added, 0 changed") {
		t.Errorf("with itself: status %d\n%s", code, out)
	}
	if _, code = peel(t, "consensus", "diff"); code != 2 {
		t.Errorf("without files: status %d", code)
	}
}

func TestConsensusVerify(t *testing.T) {
	n, network, before, state := consensusFiles(t)
	out, code := peel(t, "consensus", "verify", state, "--network", network)
	if code != 0 || strings.Count(out, "good, by a key") != 5 || !strings.HasSuffix(out, "valid: clients of this network use it\n") {
		t.Errorf("status %d\n%s", code, out)
	}
	few := *n.Consensus
	few.Signatures = few.Signatures[:3]
	stranger := dirtest.New(1, 30, dirtest.Authorities(6)).Network
	other, err := stranger.Encode()
	if err != nil {
		t.Fatal(err)
	}
	otherFile := filepath.Join(t.TempDir(), "network.toml")
	if err := os.WriteFile(otherFile, other, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		text    []byte
		network string
		at      string
		want    []string
	}{
		{"an entry changed", bytes.Replace(n.Text, []byte("relay3\n"), []byte("relayX\n"), 1), network, "", []string{"FAILED  entries", "an entry was changed"}},
		{"too few signatures", few.Append(nil), network, "", []string{"no      signature of authority", "did not sign", "FAILED  threshold", "3 good signatures, but 4 of 5"}},
		{"another network", n.Text, otherFile, "", []string{"FAILED  network"}},
		{"expired", n.Text, network, "2100-01-01T00:00:00Z", []string{"FAILED  time", "expired at"}},
		{"of the future", n.Text, network, "2000-01-01T00:00:00Z", []string{"FAILED  time", "clock is at least"}},
	} {
		if err := os.WriteFile(before, c.text, 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"consensus", "verify", before, "--network", c.network}
		if c.at != "" {
			args = append(args, "--at", c.at)
		}
		out, code := peel(t, args...)
		for _, want := range append(c.want, "NOT VALID") {
			if code != 1 || !strings.Contains(out, want) {
				t.Errorf("%s: status %d, want %q\n%s", c.name, code, want, out)
			}
		}
		var v verified
		out, code = peel(t, append(args, "--json")...)
		if code != 1 || json.Unmarshal([]byte(out), &v) != nil || v.OK {
			t.Errorf("%s, JSON: status %d\n%s", c.name, code, out)
		}
	}
	for _, args := range [][]string{{before}, {before, "--network", network, "--at", "noon"}, {before, "--network", before}} {
		if out, code := peel(t, append([]string{"consensus", "verify"}, args...)...); code != 2 {
			t.Errorf("%v: status %d\n%s", args, code, out)
		}
	}
}
