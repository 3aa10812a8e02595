package authority

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"peel/cell"
	"peel/directory"
)

// evidenceKept is how many different votes, and how many different signed headers, of one authority
// for one period are kept: two prove that it is dishonest, more add nothing.
const evidenceKept = 2

// round is what an authority holds of one period. It has no lock of its own.
type round struct {
	period  Period
	votes   map[cell.NodeID][]heldVote
	headers map[cell.NodeID][]heldHeader
	vouched bool                 // another authority holds our vote
	tallied []*directory.Vote    // the votes that counted
	result  *directory.Consensus // what we computed, not signed; nil before, or when there is none
	digest  directory.Digest     // of result's header
	why     error                // why there is no result
	told    map[cell.Key]bool    // whose vote was refused, by its link key, as the log says already
}

type heldVote struct {
	vote   *directory.Vote
	text   []byte
	digest directory.Digest
	flags  FlagCounts // of no name
}

type heldHeader struct {
	header    directory.Header
	digest    directory.Digest
	signature directory.Signature
}

func newRound(p Period) *round {
	return &round{period: p, votes: map[cell.NodeID][]heldVote{}, headers: map[cell.NodeID][]heldHeader{}, told: map[cell.Key]bool{}}
}

// addVote takes in a vote that verified, for this period, and says whether it is news.
func (r *round) addVote(v *directory.Vote, text []byte) bool {
	id := v.Certificate.Identity
	digest := directory.DigestOf(text)
	if r.holdsVote(id, digest) {
		return false
	}
	r.votes[id] = append(r.votes[id], heldVote{v, text, digest, countFlags(v)})
	return true
}

// holdsVote says whether nothing can be learned from a vote of the digest.
func (r *round) holdsVote(id cell.NodeID, digest directory.Digest) bool {
	held := r.votes[id]
	return len(held) == evidenceKept || slices.ContainsFunc(held, func(h heldVote) bool { return h.digest == digest })
}

// counted returns the votes that count: those of authorities of which a single one is known. Our
// own counts when another authority holds it, or there is no other.
func (r *round) counted(self cell.NodeID, authorities int) []*directory.Vote {
	var list []*directory.Vote
	for id, held := range r.votes {
		if len(held) == 1 && (id != self || r.vouched || authorities == 1) {
			list = append(list, held[0].vote)
		}
	}
	return list
}

// holdsHeader says whether nothing can be learned from a signature over the header of the digest.
func (r *round) holdsHeader(id cell.NodeID, digest directory.Digest) bool {
	held := r.headers[id]
	return len(held) == evidenceKept || slices.ContainsFunc(held, func(h heldHeader) bool { return h.digest == digest })
}

// addHeader takes in a signature that verified, over a header of this period, and says whether it
// is news.
func (r *round) addHeader(h directory.Header, digest directory.Digest, s directory.Signature) bool {
	id := s.Certificate.Identity
	if r.holdsHeader(id, digest) {
		return false
	}
	r.headers[id] = append(r.headers[id], heldHeader{h, digest, s})
	return true
}

// signed returns the header of a digest with all of its signatures, or nil if nobody signed it.
func (r *round) signed(digest directory.Digest) *directory.SignedHeader {
	var s *directory.SignedHeader
	for _, held := range r.headers {
		for _, h := range held {
			if h.digest != digest {
				continue
			}
			if s == nil {
				s = &directory.SignedHeader{Header: h.header}
			}
			s.Add(h.signature)
		}
	}
	return s
}

// allSigned returns every header that somebody signed, by digest, each with its signatures.
func (r *round) allSigned() []*directory.SignedHeader {
	var digests []directory.Digest
	for _, held := range r.headers {
		for _, h := range held {
			digests = append(digests, h.digest)
		}
	}
	slices.SortFunc(digests, func(a, b directory.Digest) int { return bytes.Compare(a[:], b[:]) })
	var list []*directory.SignedHeader
	for _, d := range slices.Compact(digests) {
		list = append(list, r.signed(d))
	}
	return list
}

// list writes which votes are held, a line "authority digest" each, in order.
func (r *round) list() []byte {
	var lines []string
	for id, held := range r.votes {
		for _, h := range held {
			lines = append(lines, id.String()+" "+h.digest.String()+"\n")
		}
	}
	slices.Sort(lines)
	return []byte(strings.Join(lines, ""))
}

// listed is a line of what list writes.
type listed struct {
	authority cell.NodeID
	digest    directory.Digest
}

// maxList bounds what list writes, in bytes.
const maxList = directory.MaxAuthorities * evidenceKept * 128

// parseList parses what list writes, in any order.
func parseList(text []byte) ([]listed, error) {
	var list []listed
	for line := range bytes.Lines(text) {
		id, digest, ok := strings.Cut(string(bytes.TrimSuffix(line, []byte("\n"))), " ")
		if !ok || len(list) == directory.MaxAuthorities*evidenceKept {
			return nil, fmt.Errorf("authority: list of votes, line %d: want at most %d of an authority and a digest",
				len(list)+1, directory.MaxAuthorities*evidenceKept)
		}
		var l listed
		var err error
		if l.authority, err = cell.ParseNodeID(id); err == nil {
			l.digest, err = directory.ParseDigest(digest)
		}
		if err != nil {
			return nil, fmt.Errorf("authority: list of votes, line %d: %w", len(list)+1, err)
		}
		list = append(list, l)
	}
	return list, nil
}

// split cuts a text before each line that is top, a document's first line.
func split(text []byte, top string) [][]byte {
	var parts [][]byte
	for len(text) > 0 {
		end := len(text)
		if i := bytes.Index(text[1:], []byte("\n"+top)); i >= 0 {
			end = i + 2
		}
		parts = append(parts, text[:end])
		text = text[end:]
	}
	return parts
}
