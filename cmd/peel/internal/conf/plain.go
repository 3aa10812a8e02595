package conf

import "regexp"

var (
	houseWords = regexp.MustCompile(`(^|: |\()(?:cell|directory|path): (?:(?:node id|key|network): )?`)
	callWords  = regexp.MustCompile(`(?m)(^|: )(?:stat|lstat|open) ([^ :]*/[^:]*: |[^ :]+: )`)
)

// Plain leaves out of an error's text what its user has no use for: which of our packages found it, and by which system call.
func Plain(err error) string {
	return callWords.ReplaceAllString(houseWords.ReplaceAllString(err.Error(), "$1"), "$1$2")
}
