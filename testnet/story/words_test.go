package story

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

// Who watches reads what happened, and not which package found it.
func TestWordsAreForPeople(t *testing.T) {
	link := errors.New("link: closed")
	for _, c := range []struct {
		err  error
		want string
	}{
		{link, "closed"},
		{fmt.Errorf("circuit: hop 2: %w", link), "hop 2: closed"},
		{fmt.Errorf("client: %w", fmt.Errorf("circuit: hop 2: %w", link)), "hop 2: closed"},
		{fmt.Errorf("relay7: %w", errors.New("relay: full")), "relay7: full"},
		{fmt.Errorf("lab: %w, %w", errors.New("exit: no"), errors.New("dns: no")), "no, no"},
		{errors.New("what is said of link: closed stays"), "what is said of link: closed stays"},
		{io.EOF, "EOF"},
	} {
		if got := Words(c.err); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if got := Sayf("%s could not: %v, %d times", "client1", link, 3); got != "client1 could not: closed, 3 times" {
		t.Errorf("%q", got)
	}
}
