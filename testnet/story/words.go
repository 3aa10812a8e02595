package story

import (
	"fmt"
	"regexp"
	"strings"
)

// rooms are the packages whose names begin their errors; house_test.go finds any that is missing.
var rooms = regexp.MustCompile(`^(?:cell|gcm|hybrid|link|circuit|stream|directory|head|cache|authority|relay|exit|dns|client|path|guard|socks|` +
	`testnet|lab|plan|bench|memnet|netns|virtual|admin|page|sealed|window): `)

// A nameFirst is an error that may begin with a name that somebody gave to something, such as a file's, which may be that of one of our packages.
type nameFirst interface{ BeginsWithName() bool }

// Words are an error as its user reads it: without the names of our packages, which begin it and the errors in it. The same words elsewhere
// are somebody's names and texts, and stay.
func Words(err error) string {
	text := err.Error()
	within := wrapped(err)
	end := len(text)
	for i := len(within) - 1; i >= 0; i-- {
		was, now := within[i].Error(), Words(within[i])
		if was == text {
			return now
		}
		if at := strings.LastIndex(text[:end], was); at >= 0 {
			text, end = text[:at]+now+text[at+len(was):], at
		}
	}
	if n, ok := err.(nameFirst); ok && n.BeginsWithName() {
		return text
	}
	return rooms.ReplaceAllString(text, "")
}

// Sayf is fmt.Sprintf in the words of errors.
func Sayf(format string, a ...any) string {
	said := make([]any, len(a))
	for i, x := range a {
		if err, ok := x.(error); ok && err != nil {
			x = Words(err)
		}
		said[i] = x
	}
	return fmt.Sprintf(format, said...)
}

// wrapped are the errors in an error, in the order of its text.
func wrapped(err error) []error {
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		return e.Unwrap()
	case interface{ Unwrap() error }:
		if one := e.Unwrap(); one != nil {
			return []error{one}
		}
	}
	return nil
}
