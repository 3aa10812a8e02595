package directory

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"peel/cell"
)

// What can be wrong with a document that parses; ask with errors.Is. The errors of Verify also have
// types with the details.
var (
	ErrNetwork     = errors.New("directory: of another network")
	ErrRoot        = errors.New("directory: entries are not those that were signed")
	ErrSignatures  = errors.New("directory: too few signatures")
	ErrCertificate = errors.New("directory: certificate not valid")
	ErrExpired     = errors.New("directory: expired")
	ErrFuture      = errors.New("directory: not yet valid")
)

// MaxSkew is how far a clock may be behind without being told.
const MaxSkew = 5 * time.Minute

// Grace is how long past its end an expired consensus may still be used (Usable).
const Grace = 24 * time.Hour

// NetworkError: the document is of another network.
type NetworkError struct {
	Document   string
	Have, Want cell.NetworkID
}

func (e *NetworkError) Error() string {
	return fmt.Sprintf("directory: this %s is of network %s, not of %s: check that all use the same network.toml", e.Document, e.Have, e.Want)
}

// Unwrap returns ErrNetwork.
func (e *NetworkError) Unwrap() error { return ErrNetwork }

// RootError: an entry was changed, added, left out or moved after the header was signed.
type RootError struct {
	Have, Want             Digest
	HaveRelays, WantRelays int
}

func (e *RootError) Error() string {
	if e.HaveRelays != e.WantRelays {
		return fmt.Sprintf("directory: consensus: %d relays, but the signed header says %d: entries were added or left out", e.HaveRelays, e.WantRelays)
	}
	return fmt.Sprintf("directory: consensus: the relays hash to root %s, but the signed header says %s: an entry was changed", e.Have, e.Want)
}

// Unwrap returns ErrRoot.
func (e *RootError) Unwrap() error { return ErrRoot }

// SignaturesError: fewer authorities signed than the network demands.
type SignaturesError struct {
	Have, Need int
	Missing    []MissingSignature // one for each authority whose signature does not count
}

// MissingSignature says why an authority's signature does not count.
type MissingSignature struct {
	Nickname string
	ID       cell.NodeID
	Err      error // nil: there is none
}

func (e *SignaturesError) Error() string {
	var s []string
	for _, m := range e.Missing {
		if m.Err == nil {
			s = append(s, m.Nickname+" (did not sign)")
		} else {
			s = append(s, m.Nickname+" ("+strings.TrimPrefix(m.Err.Error(), "directory: ")+")")
		}
	}
	return fmt.Sprintf("directory: consensus: %d good signatures of the %d needed; missing: %s", e.Have, e.Need, strings.Join(s, ", "))
}

// Unwrap returns ErrSignatures, and ErrCertificate if there would be enough signatures were it not
// for certificates that do not hold.
func (e *SignaturesError) Unwrap() []error {
	certs := 0
	for _, m := range e.Missing {
		if errors.Is(m.Err, ErrCertificate) {
			certs++
		}
	}
	if certs > 0 && e.Have+certs >= e.Need {
		return []error{ErrSignatures, ErrCertificate}
	}
	return []error{ErrSignatures}
}

// TimeError: the consensus does not hold now by this clock.
type TimeError struct {
	Err                         error // ErrExpired or ErrFuture
	ValidAfter, ValidUntil, Now time.Time
}

func (e *TimeError) Error() string {
	now := e.Now.UTC().Format(timeFormat)
	if e.Err == ErrFuture {
		return fmt.Sprintf("directory: the consensus holds from %s, but this clock says %s: enough authorities signed it, so the clock is at least %s behind; set it",
			e.ValidAfter.Format(timeFormat), now, span(e.Skew()))
	}
	return fmt.Sprintf("directory: the consensus expired at %s, %s ago by this clock, which says %s: there is no newer one here yet, or the clock is ahead",
		e.ValidUntil.Format(timeFormat), span(e.Now.Sub(e.ValidUntil)), now)
}

// Unwrap returns ErrExpired or ErrFuture.
func (e *TimeError) Unwrap() error { return e.Err }

// Skew is the least that the clock must be wrong, if the consensus is a current one: positive when
// the clock is behind, negative when it is ahead.
func (e *TimeError) Skew() time.Duration {
	if e.Err == ErrFuture {
		return e.ValidAfter.Sub(e.Now)
	}
	return e.ValidUntil.Sub(e.Now)
}

// span writes a duration as a person would say it: "3 days", "2 hours", "10 minutes", "5 seconds".
func span(d time.Duration) string {
	d = d.Round(time.Second)
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "days"}, {time.Hour, "hours"}, {time.Minute, "minutes"}} {
		if d >= 2*u.unit {
			return fmt.Sprintf("%d %s", d/u.unit, u.name)
		}
	}
	switch n := d / time.Second; n {
	case 0:
		return "less than a second"
	case 1:
		return "a second"
	default:
		return fmt.Sprintf("%d seconds", n)
	}
}

// VerifySignatures returns nil if the header is of the network and enough of its authorities signed
// it, else a NetworkError or a SignaturesError. Several signatures of one authority count once,
// those of others not at all; certificates must hold when the header begins to.
func (s *SignedHeader) VerifySignatures(n *Network) error {
	if id := n.ID(); s.Network != id {
		return &NetworkError{Document: "consensus", Have: s.Network, Want: id}
	}
	text := s.Header.Append(nil)
	e := &SignaturesError{Need: n.Threshold}
	for i := range n.Authorities {
		a := &n.Authorities[i]
		missing := MissingSignature{Nickname: a.Nickname, ID: a.ID}
		good := false
		for j := range s.Signatures {
			if s.Signatures[j].Certificate.Identity != a.ID {
				continue
			}
			if missing.Err = s.checkSignature(&s.Signatures[j], text); missing.Err == nil {
				good = true
				break
			}
		}
		if good {
			e.Have++
		} else {
			e.Missing = append(e.Missing, missing)
		}
	}
	if e.Have < e.Need || e.Need < 1 {
		return e
	}
	return nil
}

// Verify returns nil if the header is of the network, enough of its authorities signed it, and it
// holds now. The error is a NetworkError, a SignaturesError or a TimeError, in this order, so that a
// TimeError is about a header that is sound.
func (s *SignedHeader) Verify(n *Network, now time.Time) error {
	if err := s.VerifySignatures(n); err != nil {
		return err
	}
	t := &TimeError{ValidAfter: s.ValidAfter, ValidUntil: s.ValidUntil, Now: now}
	switch {
	case now.Add(MaxSkew).Before(s.ValidAfter):
		t.Err = ErrFuture
		return t
	case now.After(s.ValidUntil):
		t.Err = ErrExpired
		return t
	}
	return nil
}

// Verify is SignedHeader's, and also checks the entries against the header, as ParseConsensus did: a
// RootError if they are not those that were signed.
func (c *Consensus) Verify(n *Network, now time.Time) error {
	if err := c.SignedHeader.Verify(n, now); err != nil {
		return err
	}
	return c.checkRoot()
}

// Usable is Verify, but lets a consensus be used up to 24 h past its end: then note is the
// sentence to show, which is empty otherwise.
func (s *SignedHeader) Usable(n *Network, now time.Time) (note string, err error) {
	err = s.Verify(n, now)
	var t *TimeError
	if !errors.As(err, &t) || t.Err != ErrExpired || now.After(s.ValidUntil.Add(Grace)) {
		return "", err
	}
	left := s.ValidUntil.Add(Grace).Sub(now)
	return fmt.Sprintf("the directory expired %s ago; until a newer one comes it is used, for %s more", span(now.Sub(s.ValidUntil)), span(left)), nil
}

// Usable is SignedHeader's, and also checks the entries against the header.
func (c *Consensus) Usable(n *Network, now time.Time) (note string, err error) {
	if note, err = c.SignedHeader.Usable(n, now); err != nil {
		return "", err
	}
	if err := c.checkRoot(); err != nil {
		return "", err
	}
	return note, nil
}
