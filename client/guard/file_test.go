package guard

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"peel/cell"
)

// lived is a set with all that a file can hold.
func lived(t testing.TB) *Set {
	s := made(t, relays(200), 1)
	for i := range 5 {
		s.Succeeded(s.order[19-i].id, nil, t0, seeded(1))
		s.Note(s.order[i].id, true, true, true, i%2 == 0)
	}
	s.Leave(s.order[0].id, t0, seeded(1))
	s.Update(relays(200, number(s.order[1].id), number(s.order[7].id)), nil, t0, seeded(2))
	return s
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	s := lived(t)
	text := s.Encode()
	got, err := Parse(text, network)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if !bytes.Equal(got.Encode(), text) {
		t.Errorf("read back\n%s, wrote\n%s", got.Encode(), text)
	}
	got.Update(relays(200, number(s.sample[0].id)), nil, t0, seeded(2))
	s.Update(relays(200, number(s.sample[0].id)), nil, t0, seeded(2))
	if len(got.order) != len(s.order) || len(s.used) != 5 {
		t.Fatal(len(got.order), len(s.order), len(s.used))
	}
	for i, m := range got.order {
		if m.id != s.order[i].id {
			t.Errorf("place %d has changed", i)
		}
	}
	if s, err := Parse(New(network).Encode(), network); err != nil || len(s.sample) != 0 {
		t.Errorf("an empty set: %v", err)
	}
}

// No part of a file is taken for the whole, and nothing altered for what was written.
func TestEveryTruncationAndEveryChangedByteIsRefused(t *testing.T) {
	text := lived(t).Encode()
	for n := range text {
		if _, err := Parse(text[:n], network); err == nil {
			t.Fatalf("the first %d bytes of %d are accepted", n, len(text))
		}
	}
	for i := range text {
		for _, x := range []byte{1, 0x20, 0x80} {
			b := bytes.Clone(text)
			b[i] ^= x
			if _, err := Parse(b, network); err == nil {
				t.Fatalf("accepted with byte %d changed", i)
			}
		}
	}
	if _, err := Parse(append(bytes.Clone(text), '\n'), network); err == nil {
		t.Error("accepted with a line more")
	}
}

func TestForeignAndNewerFiles(t *testing.T) {
	text := lived(t).Encode()
	if _, err := Parse(text, cell.NetworkID{9}); !errors.Is(err, ErrForeign) {
		t.Errorf("of another network: %v", err)
	}
	newer := strings.Replace(string(text), "format = 2", "format = 3", 1)
	if _, err := Parse([]byte(newer), network); !errors.Is(err, ErrNewer) {
		t.Errorf("of a later version: %v", err)
	}
	newer = strings.Replace(newer, "network", "nets", 1)
	if _, err := Parse([]byte(newer), network); !errors.Is(err, ErrNewer) {
		t.Errorf("of a later version, with other keys: %v", err)
	}
}

// What has the right sum and makes no sense is refused as well.
func TestFilesThatMakeNoSense(t *testing.T) {
	text := string(lived(t).Encode())
	body := text[strings.Index(text, "network ="):]
	one := body[strings.Index(body, "[[guard]]"):]
	one = one[:strings.Index(one[9:], "[[guard]]")+9]
	for name, b := range map[string]string{
		"a guard twice":        strings.Replace(body, one, one+one, 1),
		"no date":              strings.Replace(body, `added = "2026-02`, `added = "2026-13`, 1),
		"a year long ago":      strings.Replace(body, `added = "2026-`, `added = "1026-`, 1),
		"a rank twice":         strings.Replace(body, "rank = 2", "rank = 1", 1),
		"a rank too many":      strings.Replace(body, "rank = 0", "rank = 6", 1),
		"a rank missing":       strings.Replace(body, "rank = 5", "rank = 7", 1),
		"a rank of none":       strings.Replace(body, "rank = 5", "rank = -1", 1),
		"three counts":         strings.Replace(body, "circuits = [0, ", "circuits = [", 1),
		"a count below 0":      strings.Replace(body, "circuits = [0, ", "circuits = [-1, ", 1),
		"a count above all":    strings.Replace(body, "circuits = [0, ", "circuits = [301, ", 1),
		"leaves below 0":       strings.Replace(body, "leaves = 1", "leaves = -1", 1),
		"leaves without end":   strings.Replace(body, "leaves = 1", "leaves = 17", 1),
		"left never":           strings.Replace(body, "leaves = 1", "leaves = 0", 1),
		"left until never":     strings.Replace(body, "leaves = 0", "leaves = 1", 1),
		"no identity":          strings.Replace(body, `identity = "`, `identity = "a`, 1),
		"a key nobody knows":   body + "x = 1\n",
		"more guards than may": body + strings.Repeat(one, 60),
	} {
		if b == body {
			t.Fatalf("%s: the case changes nothing", name)
		}
		whole := text[:strings.Index(text, "sum =")] + "sum = \"" + sum([]byte(b)) + "\"\n" + b
		if _, err := Parse([]byte(whole), network); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRandomDamage(t *testing.T) {
	text := lived(t).Encode()
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		b := bytes.Clone(text)
		for range 1 + r.IntN(4) {
			i := r.IntN(len(b))
			j := min(len(b), i+r.IntN(100))
			switch r.IntN(3) {
			case 0:
				b[i] = byte(r.IntN(256))
			case 1:
				b = append(b[:i:i], b[j:]...)
			case 2:
				b = append(b[:j:j], b[i:]...)
			}
		}
		if _, err := Parse(b, network); err == nil && !bytes.Equal(b, text) {
			t.Fatalf("accepted:\n%s", b)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(lived(f).Encode())
	f.Add(New(network).Encode())
	f.Add(lived(f).encode(1))
	f.Add([]byte("format = 3\n"))
	text := string(lived(f).Encode())
	for _, change := range [][2]string{
		{"\nnetwork = \"", "\nnetwork = \"x"}, {"rank = 1\n", "rank = 2\n"}, {"rank = 1\n", "rank = 0\n"}, {"rank = 0\n", "rank = 1\n"}, {"added = \"2", "added = \"0"},
		{"circuits = [", "circuits = [0, "}, {"circuits = [", "circuits = [-"}, {"leaves = 0", "leaves = 9"}, {"until = \"\"", "until = \"9999-12-31\""}, {"[[guard]]", "[[guards]]"},
	} {
		changed := strings.Replace(text, change[0], change[1], 1)
		if changed == text {
			f.Fatalf("%q changes nothing", change)
		}
		f.Add([]byte(changed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, text := range [][]byte{text, summed(text)} {
			s, err := Parse(text, network)
			if err != nil {
				continue
			}
			if !bytes.Equal(s.Encode(), text) && !bytes.Equal(s.encode(1), text) {
				t.Error("what is accepted is not written alike")
			}
			s.Update(relays(30), nil, t0, seeded(1))
			if len(s.sample) > MaxSample {
				t.Error("too many guards")
			}
			if again, err := Parse(s.Encode(), network); err != nil || !bytes.Equal(again.Encode(), s.Encode()) {
				t.Errorf("what came of it is not read again: %v\n%s", err, s.Encode())
			}
		}
	})
}

// summed is a text with the sum that its body has.
func summed(text []byte) []byte {
	head, rest, _ := bytes.Cut(text, []byte("\nsum = \""))
	_, body, _ := bytes.Cut(rest, []byte("\n"))
	return fmt.Appendf(bytes.Clone(head), "\nsum = %q\n%s", sum(body), body)
}
