package directory

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"peel/cell"
)

// Limits of the documents, in bytes and counts (spec/directory.md, section 2).
const (
	MaxDescriptor  = 16 << 10
	MaxCertificate = 4 << 10
	MaxHeader      = 128 << 10 // a header with all its signatures
	MaxVote        = 16 << 20
	MaxConsensus   = 16 << 20
	MaxLine        = 2048 // without its newline
	MaxRelays      = 65535
)

// timeFormat is how a time is written: UTC, whole seconds.
const timeFormat = "2006-01-02T15:04:05Z"

// ParseError says where a document is not as its writer would have written it.
type ParseError struct {
	Document string // "descriptor", "vote", …
	Line     int    // from 1; 0: the document as a whole
	Reason   string
	Err      error // the cause, if it has a type of its own
}

func (e *ParseError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("directory: %s: %s", e.Document, e.Reason)
	}
	return fmt.Sprintf("directory: %s, line %d: %s", e.Document, e.Line, e.Reason)
}

func (e *ParseError) Unwrap() error { return e.Err }

// reader reads the lines of a document in order. The first error sticks: later calls do nothing
// and return zero values, so that a parser reads straight down and asks for err at its end.
type reader struct {
	doc  string
	text []byte
	pos  int // where the next line begins
	line int // the number of the last line taken
	err  error

	key  string // the next line's keyword, "" at the end
	val  string // and what follows it
	next int    // where the line after it begins

	piece    string // a copy of the text from pieceAt on, that lines are cut from: what is kept of them must be cloned
	pieceAt  int
	words    []string // fields' own
	ruled    []Rule   // rules' own
	versions []string // seen before: few relays have one of their own
}

const (
	pieceSize   = 16 << 10 // more than MaxLine
	maxVersions = 16       // remembered by a reader
)

// str returns the next n bytes as a string: one copy serves many lines.
func (r *reader) str(n int) string {
	if r.pos+n > r.pieceAt+len(r.piece) {
		r.pieceAt = r.pos
		r.piece = string(r.text[r.pos:min(len(r.text), r.pos+pieceSize)])
	}
	return r.piece[r.pos-r.pieceAt:][:n]
}

func newReader(doc string, text []byte, limit int) *reader {
	r := &reader{doc: doc, text: text}
	if len(text) > limit {
		r.err = &ParseError{Document: doc, Reason: fmt.Sprintf("%d bytes, but at most %d are allowed", len(text), limit)}
		return r
	}
	r.look()
	return r
}

// failAt records an error at a line.
func (r *reader) failAt(line int, format string, args ...any) {
	if r.err != nil {
		return
	}
	err := fmt.Errorf(format, args...)
	e := &ParseError{Document: r.doc, Line: line, Reason: strings.TrimPrefix(err.Error(), "directory: ")}
	if u, ok := err.(interface{ Unwrap() error }); ok {
		e.Err = u.Unwrap()
	}
	r.err = e
	r.key, r.val = "", ""
}

// fail records an error at the line taken last.
func (r *reader) fail(format string, args ...any) { r.failAt(r.line, format, args...) }

// look reads the line at pos into key, val and next.
func (r *reader) look() {
	r.key, r.val = "", ""
	if r.err != nil || r.pos == len(r.text) {
		return
	}
	rest := r.text[r.pos:]
	n := bytes.IndexByte(rest[:min(len(rest), MaxLine+1)], '\n')
	if n < 0 {
		if len(rest) > MaxLine {
			r.failAt(r.line+1, "longer than %d bytes", MaxLine)
		} else {
			r.failAt(r.line+1, "the text is cut off: no newline at its end")
		}
		return
	}
	line := rest[:n]
	space := true // so that a space at the front is refused as well
	for _, c := range line {
		if c < 0x20 || c > 0x7e {
			r.failAt(r.line+1, "has byte 0x%02x: only printable ASCII and single spaces are allowed", c)
			return
		}
		if c == ' ' && space {
			r.failAt(r.line+1, "has a space at its front or two in a row")
			return
		}
		space = c == ' '
	}
	if space {
		r.failAt(r.line+1, "is empty or ends in a space")
		return
	}
	r.key, r.val, _ = strings.Cut(r.str(n), " ")
	r.next = r.pos + n + 1
}

// has reports whether the next line has the keyword.
func (r *reader) has(key string) bool { return r.err == nil && r.key == key }

// take takes the next line, which must have the keyword, and returns what follows it.
func (r *reader) take(key string) string {
	if r.err != nil {
		return ""
	}
	if r.key != key {
		if r.pos == len(r.text) {
			r.failAt(r.line+1, "the text ends where %q must stand", key)
		} else {
			r.failAt(r.line+1, "%q stands where %q must", clip(r.key), key)
		}
		return ""
	}
	val := r.val
	r.line++
	r.pos = r.next
	r.look()
	return val
}

// title takes the first line of a document: its kind and format version, always 1.
func (r *reader) title(kind string) {
	if v := r.take(kind); v != "1" {
		r.fail("format version %q of %s, but only 1 is known", clip(v), kind)
	}
}

// end refuses anything that is left and returns the error of the whole.
func (r *reader) end() error {
	if r.err == nil && r.pos != len(r.text) {
		r.failAt(r.line+1, "stands after the document's end")
	}
	return r.err
}

// same refuses a text that its writer would have written in another way.
func (r *reader) same(from int, wrote []byte) {
	if r.err != nil {
		return
	}
	got := r.text[from:r.pos]
	if bytes.Equal(got, wrote) {
		return
	}
	n := 0
	for n < len(got) && n < len(wrote) && got[n] == wrote[n] {
		n++
	}
	line := bytes.Count(r.text[:from+n], []byte{'\n'}) + 1
	r.failAt(line, "is not written in the one way allowed")
}

// parsed passes on a value, or records why there is none.
func parsed[T any](r *reader, v T, err error) T {
	if err != nil && r.err == nil {
		r.fail("%w", err)
	}
	if r.err != nil {
		var zero T
		return zero
	}
	return v
}

func (r *reader) nodeID(key string) cell.NodeID {
	v, err := cell.ParseNodeID(r.take(key))
	return parsed(r, v, err)
}

func (r *reader) key32(key string) cell.Key {
	v, err := cell.ParseKey(r.take(key))
	return parsed(r, v, err)
}

func (r *reader) network() cell.NetworkID {
	v, err := cell.ParseNetworkID(r.take("network"))
	return parsed(r, v, err)
}

func (r *reader) digest(key string) Digest {
	v, err := ParseDigest(r.take(key))
	return parsed(r, v, err)
}

func (r *reader) time(key string) time.Time {
	v, err := parseTime(r.take(key))
	return parsed(r, v, err)
}

func (r *reader) uint(key string, max uint64) uint64 {
	v, err := parseUint(r.take(key), max)
	return parsed(r, v, err)
}

func (r *reader) signature(key string) Signature64 {
	v, err := parseSignature64(r.take(key))
	return parsed(r, v, err)
}

// fields splits what follows a keyword into at most max words, which are good until the next call.
func (r *reader) fields(key string, max int) []string {
	v := r.take(key)
	if r.err != nil {
		return nil
	}
	if v == "" {
		r.fail("%q has no value", key)
		return nil
	}
	if n := strings.Count(v, " ") + 1; n > max {
		r.fail("%d values of %q, but at most %d are allowed", n, key, max)
		return nil
	}
	r.words = r.words[:0]
	for word := range strings.SplitSeq(v, " ") {
		r.words = append(r.words, word)
	}
	return r.words
}

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeFormat, s)
	var again [len(timeFormat) + 4]byte
	if err != nil || string(t.AppendFormat(again[:0], timeFormat)) != s || t.Unix() < 0 {
		return time.Time{}, fmt.Errorf("time %q: must be written as %s", clip(s), timeFormat)
	}
	return t, nil
}

// writableTime says whether a time can stand in a document: UTC, whole seconds, from 1970 to 9999.
func writableTime(t time.Time) bool {
	u := t.UTC()
	return u.Equal(u.Truncate(time.Second)) && u.Unix() >= 0 && u.Year() <= 9999
}

func parseUint(s string, max uint64) (uint64, error) {
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil || s[0] == '0' && s != "0" {
		return 0, fmt.Errorf("%q is not a whole number", clip(s))
	}
	if v > max {
		return 0, fmt.Errorf("%d is above the limit of %d", v, max)
	}
	return v, nil
}

// Signature64 is an Ed25519 signature.
type Signature64 [ed25519.SignatureSize]byte

// String returns the signature in unpadded base64.
func (s Signature64) String() string { return base64.RawStdEncoding.EncodeToString(s[:]) }

func parseSignature64(v string) (Signature64, error) {
	var s Signature64
	var src [86]byte
	if len(v) == len(src) {
		copy(src[:], v)
		if n, err := strictBase64.Decode(s[:], src[:]); err == nil && n == len(s) {
			return s, nil
		}
	}
	return Signature64{}, fmt.Errorf("a signature is 64 bytes in unpadded base64")
}

var strictBase64 = base64.RawStdEncoding.Strict()

// Contexts keep a signature over one kind of document from being taken for one of another kind.
const (
	contextDescriptor  = "peel descriptor v1\n"
	contextCertificate = "peel certificate v1\n"

	contextRelayCertificate = "peel relay certificate v1\n"
	contextVote             = "peel vote v1\n"
	contextConsensus        = "peel consensus v1\n"
)

func sign(context string, text []byte, key ed25519.PrivateKey) Signature64 {
	return Signature64(ed25519.Sign(key, append([]byte(context), text...)))
}

func verify(context string, text []byte, key [32]byte, sig Signature64) bool {
	return ed25519.Verify(key[:], append([]byte(context), text...), sig[:])
}

// publicOf returns a private key's public half, refusing a key of the wrong length.
func publicOf(key ed25519.PrivateKey) ([32]byte, error) {
	if len(key) != ed25519.PrivateKeySize {
		return [32]byte{}, fmt.Errorf("an Ed25519 private key has %d bytes, this one %d", ed25519.PrivateKeySize, len(key))
	}
	return [32]byte(key[32:]), nil
}

// appendLine appends a line of a keyword and its value.
func appendLine(b []byte, key, val string) []byte {
	b = append(b, key...)
	b = append(b, ' ')
	b = append(b, val...)
	return append(b, '\n')
}

func appendDigest(b []byte, key string, d Digest) []byte {
	b = append(b, key...)
	b = append(b, ' ')
	b = hex.AppendEncode(b, d[:])
	return append(b, '\n')
}

func appendKey(b []byte, key string, k cell.Key) []byte {
	b = append(b, key...)
	b = append(b, ' ')
	b, _ = k.AppendText(b)
	return append(b, '\n')
}

func appendUint(b []byte, key string, v uint64) []byte {
	b = append(b, key...)
	b = append(b, ' ')
	b = strconv.AppendUint(b, v, 10)
	return append(b, '\n')
}

func appendTime(b []byte, key string, t time.Time) []byte {
	b = append(b, key...)
	b = append(b, ' ')
	b = t.UTC().AppendFormat(b, timeFormat)
	return append(b, '\n')
}

// clip shortens what a peer wrote for an error message.
func clip(s string) string {
	if len(s) > 40 {
		return s[:37] + "..."
	}
	return s
}
