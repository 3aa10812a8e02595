package directory

import (
	"strings"
	"testing"
)

// Whoever reads why something failed reads whole words, and sees that there were more.
func TestWhatIsSaidIsCutBehindAWord(t *testing.T) {
	for _, c := range []struct {
		text, want string
		most       int
	}{
		{"", "", 10},
		{"no room", "no room", 7},
		{"be of another network, or have no room", "be of another network, or have no...", 37},
		{"be of another network, or have no room", "be of another network, or have no...", 36},
		{"be of another network, or have no room", "be of another network, or have...", 35},
		{"be of another network,  or", "be of another network,...", 25},
		{strings.Repeat("x", 20), "xxxxxxx...", 10},
		{"a " + strings.Repeat("x", 20), "a xxxxx...", 10},
		{"no room\r\nand more", "no room", 20},
		{"\x1b[31mred\x00 \u202etxt \xff", "[31mred txt ", 20},
		{"no room", "..", 2},
		{"no room", "", 0},
	} {
		if got := Said(c.text, c.most); got != c.want || len(got) > c.most {
			t.Errorf("%q of at most %d bytes is %q, want %q", c.text, c.most, got, c.want)
		}
	}
}
