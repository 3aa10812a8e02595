package authority

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"peel/cell"
	"peel/directory"
)

// The vectors' consensuses are computed by spec/vectors/tally.py, which shares no code with this package.
const (
	vectorsFile   = "../../spec/vectors/tally.json"
	vectorsScript = "../../spec/vectors/tally.py"
)

type tallyVector struct {
	Name    string `json:"name"`
	Network struct {
		Name        string        `json:"name"`
		Threshold   int           `json:"threshold"`
		Authorities []cell.NodeID `json:"authorities"`
		Start       int64         `json:"start"`
		Period      int64         `json:"period"`
	} `json:"network"`
	ValidAfter int64    `json:"valid_after"`
	Votes      []string `json:"votes"`
	Consensus  string   `json:"consensus"`
}

func TestTallyVectors(t *testing.T) {
	text, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	var vectors []tallyVector
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&vectors); err != nil {
		t.Fatal(err)
	}
	relays := 0
	for _, v := range vectors {
		n := &directory.Network{Name: v.Network.Name, Threshold: v.Network.Threshold, Schedule: directory.Schedule{
			Start: time.Unix(v.Network.Start, 0), Period: time.Duration(v.Network.Period) * time.Second,
		}}
		for _, id := range v.Network.Authorities {
			n.Authorities = append(n.Authorities, directory.AuthorityInfo{ID: id})
		}
		p := PeriodAt(n.Schedule, time.Unix(v.ValidAfter-1, 0))
		var votes []*directory.Vote
		for _, text := range v.Votes {
			vote, err := directory.ParseVote([]byte(text))
			if err == nil {
				err = vote.Verify(n)
			}
			if err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
			votes = append(votes, vote)
		}
		for range 2 {
			var got []byte
			c, err := Tally(n, p, votes)
			if err == nil {
				got = c.Header.Append(got)
				for i := range c.Entries {
					got = c.Entries[i].Append(got)
				}
				relays += len(c.Entries)
			} else if !errors.Is(err, ErrFewVotes) {
				t.Fatalf("%s: %v", v.Name, err)
			}
			if string(got) != v.Consensus {
				t.Errorf("%s: the tally is\n%s\nbut by the vectors\n%s", v.Name, got, v.Consensus)
			}
			slices.Reverse(votes)
		}
	}
	if relays < 50 {
		t.Errorf("%d vectors list %d relays in all", len(vectors), relays)
	}
}

func TestTallyVectorsAreWhatTheScriptComputes(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed: the committed vectors are used, but not computed again")
	}
	cmd := exec.Command(python, "-B", vectorsScript, vectorsFile)
	cmd.Stderr = os.Stderr
	got, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("spec/vectors/tally.json is not what tally.py computes: if the change is meant, write it again")
	}
}
