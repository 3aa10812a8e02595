package directory_test

import (
	"bytes"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"peel/directory"
	"peel/directory/dirtest"
)

// How many mutations each parser is given: few in a quick run, more with PEEL_SLOW=1, any number with PEEL_MUTATIONS=n. A
// tenth of that are given once more with all signatures checked, and to the network file's, which is TOML.
const (
	quickMutations = 4_000
	slowMutations  = 150_000
)

func mutations(t *testing.T) int {
	if s := os.Getenv("PEEL_MUTATIONS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if os.Getenv("PEEL_SLOW") == "1" {
		return slowMutations
	}
	t.Logf("%d mutations each: PEEL_SLOW=1 makes it %d, PEEL_MUTATIONS=n any number", quickMutations, slowMutations)
	return quickMutations
}

// strange are words that a number, an address or a key may be mistaken in.
var strange = []string{
	"0", "1", "-1", "65535", "65536", "4294967296", "18446744073709551616", "00", "1e3", "*", "*:*", "[::]:1", "0.0.0.0/0:*", "255.255.255.255:65535",
	"1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-02-30T00:00:00Z", "", " ", "Exit", "Running Valid", "accept", "reject *:1-65535",
}

// mutate changes a text as somebody might who knows the format: bytes, words, numbers, whole lines, other documents' lines.
// It works in lines, and appends to b.
func mutate(rng *rand.Rand, b []byte, lines [][]byte, others [][][]byte) []byte {
	for range 1 + rng.IntN(3) {
		i, j := rng.IntN(len(lines)), rng.IntN(len(lines))
		l := lines[i]
		k := 0
		if len(l) > 0 {
			k = rng.IntN(len(l))
		}
		switch op := rng.IntN(11); {
		case op == 0:
			lines[i], lines[j] = lines[j], lines[i]
		case op == 1:
			lines[i] = lines[j]
		case op == 2:
			lines[i] = nil
		case op == 3:
			lines[i] = append(bytes.Clone(l), lines[j]...)
		case op == 4: // a word
			words := bytes.Split(l, []byte(" "))
			words[rng.IntN(len(words))] = []byte(strange[rng.IntN(len(strange))])
			lines[i] = bytes.Join(words, []byte(" "))
		case op == 5:
			other := others[rng.IntN(len(others))]
			lines[i] = other[rng.IntN(len(other))]
		case op == 6: // the end
			lines = lines[:i+1]
			lines[i] = l[:k]
		case len(l) == 0:
		case op == 7:
			lines[i] = bytes.Clone(l)
			lines[i][k] ^= 1 << rng.IntN(8)
		case op == 8:
			lines[i] = append(append(bytes.Clone(l[:k]), byte(rng.IntN(256))), l[k:]...)
		case op == 9: // a digit, a letter
			lines[i] = bytes.Clone(l)
			lines[i][k] = "0123456789abcdefXYZ/.:-+ "[rng.IntN(25)]
		default:
			lines[i] = append(bytes.Clone(l[:k]), l[k+1:]...)
		}
	}
	for _, l := range lines {
		b = append(b, l...)
	}
	return b
}

// shapes is the format once more, slow and obvious: what a parser takes must look so.
var shapes = func() map[string]*regexp.Regexp {
	const cert = `network HEX\nidentity ID\nsigning-key KEY\nnot-before TIME\nnot-after TIME\nsignature SIG\n`
	parts := strings.NewReplacer(
		"RELAYCERT", "peel-relay-certificate 1\n"+cert,
		"ENTRY", `relay ID NAME\naddresses ADDR( ADDR)?\nlink-key KEY\nonion-key KEY\nFLAGS\nbandwidth NUM\nversion VERSION\n(family( ID)+\n)?RULES`,
		"HEAD", `peel-consensus 1\nnetwork HEX\nmethod NUM\nvalid-after TIME\nfresh-until TIME\nvalid-until TIME\n([a-z]\S* [^\n]+\n)*relays NUM\nroot HEX\n(CERTheader-signature SIG\n)*`,
		"CERT", "peel-certificate 1\n"+cert,
		"RULES", `((accept|reject) \S+\n)*`,
	)
	words := strings.NewReplacer(
		"ID", `[a-z2-7]{52}`, "NAME", `[A-Za-z0-9]{1,19}`, "KEY", `[A-Za-z0-9+/]{43}`, "SIG", `[A-Za-z0-9+/]{86}`, "HEX", `[0-9a-f]{64}`,
		"TIME", `[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z`, "NUM", `(0|[1-9][0-9]*)`, "VERSION", `[A-Za-z0-9.+_-]{1,32}`,
		"ADDR", `([0-9.]+|\[[0-9a-f:]+\]):[1-9][0-9]{0,4}`,
		"FLAGS", `flags( BadExit)?( Exit)?( Fast)?( Guard)?( HSDir)?( MiddleOnly)?( Running)?( Stable)?( Valid)?`,
	)
	m := map[string]*regexp.Regexp{}
	for name, shape := range map[string]string{
		"certificate": `CERT`, "relay certificate": `RELAYCERT`,
		"descriptor": `peel-descriptor 1\nnetwork HEX\nidentity ID\nnickname NAME\npublished TIME\nlink-key KEY\nonion-key KEY\naddresses ADDR( ADDR)?\n` +
			`bandwidth NUM\nobserved NUM\nversion VERSION\n(overloaded TIME\n)?(paused TIME\n)?(contact [ -~]{1,256}\n)?(family( ID)+\n)?RULES(RELAYCERT)?signature SIG\n`,
		"consensus header": `HEAD`, "consensus": `HEAD(ENTRY)*`,
		"diff": `peel-consensus-diff 1\nbase HEX\nHEAD(drop NUM\n|change NUM\n(addresses [ -~]+\n)?(link-key [ -~]+\n)?(onion-key [ -~]+\n)?` +
			`(flags( [ -~]+)?\n)?(bandwidth [ -~]+\n)?(version [ -~]+\n)?(family [ -~]+\n)?)*(ENTRY)*`,
		"proof": `peel-proof 1\nconsensus HEX\n(leaf NUM\n(path HEX( HEX)*\n)?ENTRY)*`,
		"rule":  `(accept|reject) (\*|[0-9.]+(/[0-9]+)?|\[[0-9a-f:.]+\](/[0-9]+)?):(\*|[1-9][0-9]*(-[1-9][0-9]*)?)`,
		"flags": `FLAGS`,
	} {
		m[name] = regexp.MustCompile(`\A` + words.Replace(parts.Replace(parts.Replace(shape))) + `\z`)
	}
	return m
}()

// parsers are those of whole documents and of the little languages in them.
func parsers(t *testing.T) []document {
	network, err := dirtest.New(1, 0, dirtest.Authorities(2)).Network.Encode()
	if err != nil {
		t.Fatal(err)
	}
	all := append(documents(),
		document{name: "rule", text: []byte("accept [2001:db8::]/32:80-443"), parse: func(b []byte) ([]byte, error) {
			r, err := directory.ParseRule(string(b))
			return []byte(r.String()), err
		}},
		document{name: "flags", text: []byte("Exit Fast Guard Running Valid"), parse: func(b []byte) ([]byte, error) {
			f, err := directory.ParseFlags(string(b))
			return []byte(f.String()), err
		}},
		document{name: "network file", text: network, parse: func(b []byte) ([]byte, error) {
			n, err := directory.ParseNetwork(b)
			if err != nil {
				return nil, err
			}
			text, err := n.Encode()
			if err != nil {
				t.Errorf("what was read is not written: %v\n%s", err, b)
			}
			if again, err := directory.ParseNetwork(text); err != nil || again.ID() != n.ID() {
				t.Errorf("what was written is not read as the same: %v\n%s", err, text)
			}
			return b, nil // comments and order are its writer's own
		}})
	return all
}

func TestMutationsNeitherPanicNorComeBackOtherwise(t *testing.T) {
	rounds := mutations(t)
	all := parsers(t)
	var texts [][][]byte // by lines
	for _, d := range all {
		texts = append(texts, bytes.SplitAfter(d.text, []byte("\n")))
	}
	for i, d := range all {
		t.Run(strings.ReplaceAll(d.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			h := fnv.New64()
			h.Write([]byte(d.name))
			seed := h.Sum64()
			rng := rand.New(rand.NewPCG(seed, 11))
			rounds := rounds
			switch d.name {
			case "descriptor", "certified descriptor", "certificate", "vote", "consensus", "diff", "proof", "network file":
				rounds /= 10
			}
			kind := strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(d.name, "unchecked "), "unsigned "), "certified ")
			others := [][][]byte{texts[i], texts[(i+1)%len(texts)], texts[(i+5)%len(texts)]}
			taken := 0
			var text []byte
			var lines [][]byte
			defer func() {
				if p := recover(); p != nil {
					t.Fatalf("seed %d: panic: %v\n%q", seed, p, text)
				}
			}()
			for round := range rounds {
				lines = append(lines[:0], texts[i]...)
				text = mutate(rng, text[:0], lines, others)
				if d.mend != nil && round%8 == 0 && bytes.Contains(text, []byte("\nsignature ")) == bytes.Contains(d.text, []byte("\nsignature ")) {
					text = d.mend(text)
				}
				again, err := d.parse(text)
				if err != nil {
					continue
				}
				if !bytes.Equal(text, d.text) {
					taken++
				}
				if !bytes.Equal(again, text) {
					t.Fatalf("seed %d: printed back as\n%q\nwas\n%q", seed, again, text)
				}
				look := text
				if kind == "flags" {
					look = []byte(strings.TrimSuffix("flags "+string(text), " "))
				}
				if shape := shapes[kind]; taken%8 == 0 && shape != nil && !shape.Match(look) {
					t.Fatalf("seed %d: taken, but it does not look like a %s:\n%s", seed, kind, text)
				}
			}
			if d.mend != nil && taken == 0 {
				t.Errorf("seed %d: no mutation was taken: the test shows nothing", seed)
			}
			t.Logf("seed %d: %d mutations, %d of them taken", seed, rounds, taken)
		})
	}
}
