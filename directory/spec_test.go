package directory_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

var update = flag.Bool("update", false, "write the examples of spec/directory.md anew")

const specPage = "../spec/directory.md"

// examples makes the documents that the page shows.
func examples(t *testing.T) map[string]string {
	n := dirtest.New(2026, 2, dirtest.Name("example"), dirtest.Params(directory.Params{directory.ParamRelaysPerAddr.Name: 4}),
		dirtest.Relays(func(i int, d *directory.Descriptor) {
			d.Addrs = []netip.AddrPort{netip.MustParseAddrPort(fmt.Sprintf("198.51.100.%d:9001", i+1))}
			if i == 0 {
				d.Addrs = append(d.Addrs, netip.MustParseAddrPort("[2001:db8::1]:9001"))
				d.Contact = "somebody at example.net"
				d.Family = []cell.NodeID{dirtest.New(1, 1).Relays[0].Descriptor.ID}
				d.Policy = policy(t, "reject 203.0.113.0/24:*", "accept *:80", "accept *:443")
			}
		}))
	network, err := n.Network.Encode()
	if err != nil {
		t.Fatal(err)
	}
	_, vote := n.Vote(0)
	_, later := n.Churn(7, n.Consensus, 0.5)
	diff, err := directory.MakeDiff(n.Text, later)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{
		"diff":        shorten(string(diff), 1, "peel-certificate 1\n"),
		"proof":       string(proof(t, n.Consensus, n.Consensus.Entries[1].ID).Append(nil)),
		"network":     shorten(string(network), 2, "\n[[authority]]\n"),
		"certificate": string(n.Authorities[0].Certificate.Append(nil)),
		"vote":        string(vote),
		"consensus":   shorten(string(n.Sign(n.Consensus, 4)), 1, "peel-certificate 1\n"),
	}
	for _, r := range n.Relays {
		if r.Descriptor.Contact != "" {
			m["descriptor"] = string(r.Text)
		}
	}
	return m
}

// shorten leaves out all but the first keep of the repeated parts that begin with head.
func shorten(text string, keep int, head string) string {
	parts := strings.Split(text, head)
	last := parts[len(parts)-1]
	rest := ""
	for _, begin := range []string{"\ndrop ", "\nchange ", "\nrelay "} {
		if i := strings.Index(last, begin); i >= 0 && len(last)-i > len(rest) {
			rest = last[i+1:]
		}
	}
	return strings.Join(parts[:keep+1], head) + fmt.Sprintf("... (%d more like this)\n", len(parts)-1-keep) + rest
}

func TestExamplesOfTheSpecAreMadeByTheCode(t *testing.T) {
	page, err := os.ReadFile(specPage)
	if err != nil {
		t.Fatal(err)
	}
	marks := regexp.MustCompile("(?m)^<!-- example (\\w+) -->\n(?:\n```text\n(?s:.*?)```\n)?")
	all := examples(t)
	seen := 0
	want := marks.ReplaceAllStringFunc(string(page), func(s string) string {
		name := marks.FindStringSubmatch(s)[1]
		text, ok := all[name]
		if !ok {
			t.Fatalf("there is no example %q", name)
		}
		seen++
		return fmt.Sprintf("<!-- example %s -->\n\n```text\n%s```\n", name, text)
	})
	if seen != len(all) {
		t.Errorf("the page shows %d of %d examples", seen, len(all))
	}
	if want == string(page) {
		return
	}
	if !*update {
		t.Fatalf("%s shows other examples than the code makes: run go test ./directory -run Spec -update", specPage)
	}
	if err := os.WriteFile(specPage, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestTheSpecListsTheParametersThatTheCodeKnows(t *testing.T) {
	page, err := os.ReadFile(specPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range directory.KnownParams {
		if row := fmt.Sprintf("| `%s` | %d | %d–%d |\n", k.Name, k.Default, k.Min, k.Max); !strings.Contains(string(page), row) {
			t.Errorf("the page does not have the row %s", row)
		}
	}
	_, table, _ := strings.Cut(string(page), "| name | default | bounds |")
	table, _, _ = strings.Cut(table, "\n\n")
	if n := strings.Count(table, "| `"); n != len(directory.KnownParams) {
		t.Errorf("the page lists %d parameters, the code knows %d", n, len(directory.KnownParams))
	}
}
