package authority

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"peel/directory"
)

var malformed = flag.Int("malformed", 0, "malformed votes to try; 0: 1,000, or 100,000 with PEEL_SLOW=1")

// Whatever one authority signs as a vote: either it is refused, with a reason, or it is as well formed as
// any; and then the relays and parameters that the others agree on stand in the consensus all the same.
func TestMalformedVotesOfOneAuthority(t *testing.T) {
	n := 1_000
	if slow() {
		n = 100_000
	}
	if *malformed > 0 {
		n = *malformed
	}
	const parts = 2
	for part := range parts {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			b := newBallot(5, 3)
			_, good := b.net.Vote(4)
			key := b.net.Authorities[4].Signing
			others := b.votes[:4]
			clean, err := Tally(b.net.Network, b.period, others)
			if err != nil {
				t.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(uint64(part), 6))
			taken, refused := 0, 0
			for i := range n / parts {
				text := mutate(rng, good)
				if rng.IntN(4) > 0 {
					text = resignVote(text, key)
				}
				v, err := directory.ParseVote(text)
				if err == nil {
					err = v.Verify(b.net.Network)
				}
				if err != nil {
					if refused++; err.Error() == "" {
						t.Fatalf("vote %d of part %d is refused without a reason", i, part)
					}
					continue
				}
				if again := v.Append(nil); !bytes.Equal(again, text) {
					t.Fatalf("vote %d of part %d prints back otherwise:\n%s", i, part, text)
				}
				if !v.ValidAfter.Equal(b.period.ValidAfter) || v.Certificate.Identity != b.net.Authorities[4].Info.ID {
					continue
				}
				taken++
				c, err := Tally(b.net.Network, b.period, append(slices.Clone(others), v))
				if err == nil {
					_, err = c.Encode()
				}
				if err != nil {
					t.Fatalf("vote %d of part %d leaves no consensus: %v\n%s", i, part, err, text)
				}
				if len(c.Entries) != len(clean.Entries) || c.Entries[0].LinkKey != clean.Entries[0].LinkKey || len(c.Params) != len(clean.Params) {
					t.Fatalf("vote %d of part %d changes what four agree on:\n%s", i, part, text)
				}
			}
			t.Logf("part %d: %d refused, %d taken", part, refused, taken)
			if taken == 0 || refused == 0 {
				t.Error("all alike: nothing was tried")
			}
		})
	}
}

// mutate changes some lines of a vote, words or characters.
func mutate(rng *rand.Rand, text []byte) []byte {
	lines := strings.SplitAfter(string(text), "\n")
	lines = lines[:len(lines)-1]
	for range 1 + rng.IntN(5)/3 {
		i := rng.IntN(len(lines))
		words := strings.Split(strings.TrimSuffix(lines[i], "\n"), " ")
		w := rng.IntN(len(words))
		switch rng.IntN(9) {
		case 0:
			if len(lines) > 1 {
				lines = slices.Delete(lines, i, i+1)
			}
			continue
		case 1:
			lines = slices.Insert(lines, i, lines[rng.IntN(len(lines))])
			continue
		case 2:
			j := rng.IntN(len(lines))
			lines[i], lines[j] = lines[j], lines[i]
			continue
		case 3:
			words[w] = []string{"0", "1", "-1", "65536", "18446744073709551616", "1000", "", "x", "2000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "Running", "Guard Exit"}[rng.IntN(12)]
		case 4:
			words = slices.Delete(words, w, w+1)
		case 5:
			words = slices.Insert(words, w, words[rng.IntN(len(words))])
		case 6:
			other := strings.Fields(lines[rng.IntN(len(lines))])
			if len(other) > 0 {
				words[w] = other[rng.IntN(len(other))]
			}
		case 7:
			if b := []byte(words[w]); len(b) > 0 {
				b[rng.IntN(len(b))] = "0123456789abcXYZ:.[]/*=\x00\n\xff"[rng.IntN(26)]
				words[w] = string(b)
			}
		case 8:
			words[w] = strings.Repeat(words[w], 1+rng.IntN(200))
		}
		lines[i] = strings.Join(words, " ") + "\n"
	}
	return []byte(strings.Join(lines, ""))
}

// resignVote replaces the signature at a vote's end by a good one.
func resignVote(text []byte, key ed25519.PrivateKey) []byte {
	i := bytes.LastIndex(text, []byte("\nsignature ")) + 1
	if i == 0 {
		return text
	}
	sig := ed25519.Sign(key, slices.Concat([]byte("peel vote v1\n"), text[:i]))
	return fmt.Appendf(slices.Clone(text[:i]), "signature %s\n", base64.RawStdEncoding.EncodeToString(sig))
}
