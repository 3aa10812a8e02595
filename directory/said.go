package directory

import "bytes"

const cutOff = "..." // in ASCII, as all that is said

// Said is what a node says in words, an error's for example, fit for an answer, a log and a person: its first line, of printable ASCII only, and of no
// more than most bytes. What is longer ends behind a whole word, with three dots.
func Said(text string, most int) string {
	var said []byte // and a byte more, if there is more
	for i := 0; i < len(text) && text[i] != '\n' && len(said) <= most; i++ {
		if c := text[i]; c >= 0x20 && c <= 0x7e {
			said = append(said, c)
		}
	}
	if len(said) <= most {
		return string(said)
	}
	end := max(most-len(cutOff), 0)
	if i := bytes.LastIndexByte(said[:end+1], ' '); i > end/2 { // else it is one long word
		end = i
	}
	return string(bytes.TrimRight(said[:end], " ")) + cutOff[:min(len(cutOff), most)]
}
