package directory

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"peel/cell"
)

// What an authority can sign twice for one period, which an honest one never does.
const (
	TwoVotes   = "votes"
	TwoHeaders = "headers"
)

// MaxEvidence bounds a proof, in bytes.
const MaxEvidence = 2 * MaxVote

// CheckEvidence returns whom of the network's authorities a proof convicts, and for which period. The
// proof is two votes or two headers, one after another, both signed by it for the same period, and
// not the same. It needs no trust in whoever shows it.
func CheckEvidence(n *Network, kind string, proof []byte) (id cell.NodeID, period time.Time, err error) {
	if len(proof) > MaxEvidence {
		return id, period, fmt.Errorf("directory: evidence: %d bytes, but at most %d are allowed", len(proof), MaxEvidence)
	}
	var read func([]byte) (cell.NodeID, time.Time, Digest, error)
	var top string
	switch kind {
	case TwoVotes:
		top, read = "peel-vote 1\n", n.voteBy
	case TwoHeaders:
		top, read = "peel-consensus 1\n", n.headerBy
	default:
		return id, period, fmt.Errorf("directory: evidence: there is no kind %q of it", clip(kind))
	}
	second := bytes.LastIndex(proof, []byte("\n"+top)) + 1
	if second == 0 {
		return id, period, errors.New("directory: evidence: it is not two documents")
	}
	id, period, first, err := read(proof[:second])
	if err != nil {
		return cell.NodeID{}, time.Time{}, fmt.Errorf("directory: evidence: the first document: %w", err)
	}
	id2, period2, other, err := read(proof[second:])
	switch {
	case err != nil:
		err = fmt.Errorf("directory: evidence: the second document: %w", err)
	case id2 != id:
		err = errors.New("directory: evidence: the documents are by two authorities")
	case !period2.Equal(period):
		err = errors.New("directory: evidence: the documents are for two periods")
	case first == other:
		err = errors.New("directory: evidence: twice the same document")
	}
	if err != nil {
		return cell.NodeID{}, time.Time{}, err
	}
	return id, period, nil
}

func (n *Network) voteBy(text []byte) (cell.NodeID, time.Time, Digest, error) {
	v, err := ParseVote(text)
	if err == nil {
		err = v.Verify(n)
	}
	if err != nil {
		return cell.NodeID{}, time.Time{}, Digest{}, err
	}
	return v.Certificate.Identity, v.ValidAfter, DigestOf(text), nil
}

func (n *Network) headerBy(text []byte) (cell.NodeID, time.Time, Digest, error) {
	s, err := ParseSignedHeader(text)
	switch {
	case err != nil:
	case len(s.Signatures) != 1:
		err = fmt.Errorf("directory: consensus header: %d signatures, but it must have one", len(s.Signatures))
	case s.Network != n.ID():
		err = &NetworkError{Document: "consensus header", Have: s.Network, Want: n.ID()}
	default:
		err = s.CheckSignature(&s.Signatures[0])
	}
	if err != nil {
		return cell.NodeID{}, time.Time{}, Digest{}, err
	}
	id := s.Signatures[0].Certificate.Identity
	if _, ok := n.Authority(id); !ok {
		return id, time.Time{}, Digest{}, fmt.Errorf("directory: consensus header: signed by %s, which is no authority of %s", id, n.Name)
	}
	return id, s.ValidAfter, s.Header.Digest(), nil
}
