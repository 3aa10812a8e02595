package guard

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"peel/cell"
	"peel/directory/strict"
)

// MaxFile bounds the text of a set, in bytes.
const MaxFile = 64 << 10

// What is wrong with a file, where it is not just broken.
var (
	ErrForeign = errors.New("guard: the file is of another network")
	ErrNewer   = errors.New("guard: the file was written by a later version of peel")
)

const (
	format   = 2 // 1 had no leaves; it is still read
	dateForm = time.DateOnly
	heading  = "# The guards of a peel client, by which it enters the network for months. The client reads and writes this file; who\n" +
		"# changes, copies or loses it makes the client choose other guards, and each choice is a risk.\n"
)

// file is a set as it is written, after the heading, the format and the sum.
type file struct {
	Network string    `toml:"network"`
	Guard   []written `toml:"guard"`
}

type written struct {
	Identity  string `toml:"identity"`
	Added     string `toml:"added"`
	Confirmed string `toml:"confirmed"`
	Rank      int    `toml:"rank"` // among the confirmed ones, from 1
	Unlisted  string `toml:"unlisted"`
	Circuits  []int  `toml:"circuits"`
	Leaves    int    `toml:"leaves"`
	Until     string `toml:"until"`
}

// Encode writes the set. What is known of failures is of the run and not written.
func (s *Set) Encode() []byte { return s.encode(format) }

func (s *Set) encode(format int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "network = %q\n", s.network.String())
	rank := make(map[*member]int, len(s.used))
	for i, m := range s.used {
		rank[m] = i + 1
	}
	for _, m := range s.sample {
		fmt.Fprintf(&b, "\n[[guard]]\nidentity = %q\nadded = %q\nconfirmed = %q\nrank = %d\nunlisted = %q\ncircuits = [%d, %d, %d, %d]\n",
			m.id.String(), date(m.added), date(m.confirmed), rank[m], date(m.unlisted),
			m.counts.Tried, m.counts.Built, m.counts.Used, m.counts.Carried)
		if format > 1 {
			fmt.Fprintf(&b, "leaves = %d\nuntil = %q\n", m.leaves, date(m.until))
		}
	}
	head := fmt.Sprintf("%sformat = %d\nsum = %q\n", heading, format, sum(b.Bytes()))
	return append([]byte(head), b.Bytes()...)
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(dateForm)
}

// Parse reads what Encode wrote, in this version or an earlier one, for the same network. It accepts nothing else: neither a part nor an altered text.
func Parse(text []byte, network cell.NetworkID) (*Set, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("guard: %d bytes, but at most %d are allowed", len(text), MaxFile)
	}
	body, form, err := checked(text)
	if err != nil {
		return nil, err
	}
	var f file
	if err := strict.Decode(body, &f); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	switch {
	case f.Network != network.String():
		return nil, ErrForeign
	case len(f.Guard) > MaxSample:
		return nil, fmt.Errorf("guard: %d guards, but at most %d are allowed", len(f.Guard), MaxSample)
	}
	s := New(network)
	s.used = make([]*member, len(f.Guard))
	confirmed := 0
	for i := range f.Guard {
		m, err := f.Guard[i].member()
		if err != nil {
			return nil, fmt.Errorf("guard: guard %d: %w", i+1, err)
		}
		if s.find(m.id) != nil {
			return nil, fmt.Errorf("guard: guard %d is there twice", i+1)
		}
		s.sample = append(s.sample, m)
		rank := f.Guard[i].Rank
		switch {
		case m.confirmed.IsZero() && rank == 0:
		case m.confirmed.IsZero() || rank < 1 || rank > len(s.used) || s.used[rank-1] != nil:
			return nil, fmt.Errorf("guard: guard %d: rank %d does not fit", i+1, rank)
		default:
			s.used[rank-1] = m
			confirmed++
		}
	}
	for _, m := range s.used[:confirmed] {
		if m == nil {
			return nil, errors.New("guard: a rank is missing")
		}
	}
	s.used = s.used[:confirmed:confirmed]
	s.sort()
	if !bytes.Equal(s.encode(form), text) {
		return nil, errors.New("guard: the text is not what was written: its form differs")
	}
	return s, nil
}

// checked returns what the sum is of, if it is right, and the format.
func checked(text []byte) ([]byte, int, error) {
	rest := text
	for bytes.HasPrefix(rest, []byte("#")) {
		_, rest, _ = bytes.Cut(rest, []byte("\n"))
	}
	first, rest, _ := bytes.Cut(rest, []byte("\n"))
	second, body, _ := bytes.Cut(rest, []byte("\n"))
	number, ok := bytes.CutPrefix(first, []byte("format = "))
	n, err := strconv.Atoi(string(number))
	switch {
	case !ok || err != nil || n < 1:
		return nil, 0, errors.New("guard: it does not begin as such a file does")
	case n > format:
		return nil, 0, ErrNewer
	case string(second) != fmt.Sprintf("sum = %q", sum(body)):
		return nil, 0, errors.New("guard: the sum is wrong: something is missing or was changed")
	}
	return body, n, nil
}

func (w *written) member() (*member, error) {
	m := &member{allowed: true}
	var err error
	if m.id, err = cell.ParseNodeID(w.Identity); err != nil {
		return nil, err
	}
	for _, d := range []struct {
		from  string
		to    *time.Time
		never bool // may be missing
	}{{w.Added, &m.added, false}, {w.Confirmed, &m.confirmed, true}, {w.Unlisted, &m.unlisted, true}, {w.Until, &m.until, true}} {
		if d.from == "" && d.never {
			continue
		}
		if *d.to, err = time.Parse(dateForm, d.from); err != nil || d.to.Year() < 1970 || d.to.Year() > 9999 {
			return nil, fmt.Errorf("%q is not a date", d.from)
		}
	}
	if len(w.Circuits) != 4 {
		return nil, errors.New("circuits: must be four numbers")
	}
	for _, n := range w.Circuits {
		if n < 0 || n > halveAt {
			return nil, fmt.Errorf("circuits: %d: must be 0 to %d", n, halveAt)
		}
	}
	if err := w.leaves(m); err != nil {
		return nil, err
	}
	m.counts = Counts{w.Circuits[0], w.Circuits[1], w.Circuits[2], w.Circuits[3]}
	return m, nil
}
