package cell_test

import (
	"fmt"
	"strings"
	"testing"

	"peel/cell"
)

func TestNumbersStay(t *testing.T) {
	for _, tc := range []struct{ got, want any }{
		{cell.DestroyTimeout, cell.DestroyReason(10)},
		{cell.DestroyLinkClosed, cell.DestroyReason(8)},
		{cell.EndDone, cell.EndReason(1)},
		{cell.EndProtocol, cell.EndReason(13)},
		{cell.CmdCredit, cell.Command(6)},
		{cell.MsgRekey, cell.MessageType(11)},
		{cell.NoIPv4, cell.BeginFlags(1)},
		{cell.NoIPv6, cell.BeginFlags(2)},
		{cell.PreferIPv6, cell.BeginFlags(4)},
	} {
		if tc.got != tc.want {
			t.Errorf("%v (%d), want %d", tc.got, tc.got, tc.want)
		}
	}
}

// Every known value has words of its own, every unknown one shows its number.
func TestWords(t *testing.T) {
	type word interface {
		fmt.Stringer
		Valid() bool
	}
	for _, tc := range []struct {
		name  string
		of    func(byte) word
		known int // valid ones
	}{
		{"command", func(b byte) word { return cell.Command(b) }, 7},
		{"message type", func(b byte) word { return cell.MessageType(b) }, 11},
		{"destroy reason", func(b byte) word { return cell.DestroyReason(b) }, 11},
		{"end reason", func(b byte) word { return cell.EndReason(b) }, 13},
		{"resolve kind", func(b byte) word { return cell.ResolveKind(b) }, 4},
	} {
		seen, known := map[string]bool{}, 0
		for i := range 256 {
			w := tc.of(byte(i))
			s := w.String()
			if s == "" || seen[s] {
				t.Errorf("%s %d: %q is no word of its own", tc.name, i, s)
			}
			seen[s] = true
			numbered := strings.Contains(s, fmt.Sprint(i))
			if w.Valid() {
				known++
			}
			if w.Valid() == numbered && s != "none" && s != "DATAGRAM" {
				t.Errorf("%s %d: valid %v, %q", tc.name, i, w.Valid(), s)
			}
		}
		if known != tc.known {
			t.Errorf("%s: %d are valid, want %d", tc.name, known, tc.known)
		}
	}
}

func TestEndReasonZeroIsNone(t *testing.T) {
	if r := cell.EndReason(0); r.Valid() || r.String() != "none" {
		t.Errorf("%v, valid %v", r, r.Valid())
	}
}
