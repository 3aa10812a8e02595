package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"peel/directory/strict"
)

// usageError is a mistake in what the user typed or configured.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// exitError ends peel with the status of a command it ran.
type exitError struct {
	code int
	err  error // what else there is to say; nil: nothing
}

func (e *exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }
func (e *exitError) Unwrap() error { return e.err }

// aboutError is an error that begins with a name that its user gave to something.
type aboutError struct {
	name string
	err  error
}

func (e *aboutError) Error() string { return e.name + ": " + e.err.Error() }
func (e *aboutError) Unwrap() error { return e.err }

// BeginsWithName keeps the name from being taken for that of a package (story.Words).
func (e *aboutError) BeginsWithName() bool { return true }

// about makes an error that begins with a name that its user gave to something, such as a file's.
func about(name, format string, args ...any) error {
	return &aboutError{name, fmt.Errorf(format, args...)}
}

// onTheLine is the error of a file or folder that the command line names: where there is none, the user's mistake.
func onTheLine(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &usageError{err}
	}
	return err
}

// verbsOnly makes a command that is nothing without one of its verbs.
func verbsOnly(c *cobra.Command) {
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return &usageError{fmt.Errorf("there is no command %q%s (see %s --help)", c.CommandPath()+" "+args[0], meantVerb(c, args[0]), c.CommandPath())}
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
}

// meantVerb asks whether one of a command's verbs was meant; "": none is near.
func meantVerb(c *cobra.Command, typed string) string {
	var names []string
	for _, v := range c.Commands() {
		if v.IsAvailableCommand() {
			names = append(names, v.Name())
		}
	}
	if near := strict.Near(typed, names); near != "" {
		return fmt.Sprintf("; did you mean %q?", c.CommandPath()+" "+near)
	}
	for _, v := range c.Commands() { // peel top is peel testnet top
		for _, below := range v.Commands() {
			if below.Name() == typed && below.IsAvailableCommand() {
				return fmt.Sprintf("; did you mean %q?", below.CommandPath())
			}
		}
	}
	return ""
}

// meantWord asks whether one of the known words was meant; "": none is near.
func meantWord(typed string, known []string) string {
	if near := strict.Near(typed, known); near != "" {
		return fmt.Sprintf("did you mean %q? Else ", near)
	}
	return ""
}

// helpCommand is peel help: cobra's own succeeds whatever it is asked.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Say what a command does and how it is used", Args: cobra.ArbitraryArgs, Hidden: true,
		RunE: func(c *cobra.Command, args []string) error {
			at := c.Root()
			for _, name := range args {
				i := slices.IndexFunc(at.Commands(), func(v *cobra.Command) bool { return v.Name() == name })
				if i < 0 {
					return &usageError{fmt.Errorf("there is no command %q%s", at.CommandPath()+" "+name, meantVerb(at, name))}
				}
				at = at.Commands()[i]
			}
			at.InitDefaultHelpFlag()
			return at.Help()
		},
	}
}

// helpWidth is how many letters a line of help has at most.
const helpWidth = 88

// folded breaks the lines of a text anew, so that none is wider: but not in paragraphs with lines that are indented or have columns.
func folded(text string, width int) string {
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		if strings.Contains("\n"+p, "\n ") || strings.Contains(p, "   ") {
			continue
		}
		var b strings.Builder
		at := 0
		for _, word := range strings.Fields(p) {
			n := utf8.RuneCountInString(word)
			switch {
			case at == 0:
			case at+1+n > width:
				b.WriteByte('\n')
				at = 0
			default:
				b.WriteByte(' ')
				at++
			}
			b.WriteString(word)
			at += n
		}
		paragraphs[i] = b.String()
	}
	return strings.Join(paragraphs, "\n\n")
}

// strictly makes whatever is wrong with the command line of c, or of a verb below it, a usageError in words of ours: what is wrong, and how
// it is meant.
func strictly(c *cobra.Command) {
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if c.HasSubCommands() && c.Args != nil && c.Flags().NArg() > 0 { // the verb is wrong, and so no flag of it is known
			if err := c.Args(c, c.Flags().Args()); err != nil {
				return err
			}
		}
		return &usageError{fmt.Errorf("%s (see %s --help)", flagMistake(c, err), c.CommandPath())}
	})
	if takes := c.Args; takes != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if name := oneDash(c); name != "" {
				return &usageError{fmt.Errorf("there is no flag -%s; did you mean --%[1]s? (see %s --help)", name, c.CommandPath())}
			}
			if err := takes(c, args); err != nil {
				return argsMistake(c, takes, args, err)
			}
			if what := flagsMissing(c); what != "" {
				return usageOf(c, what)
			}
			return nil
		}
	}
	for _, v := range c.Commands() {
		strictly(v)
	}
}

// usageOf is a mistake in the use of a command, with how it is used.
func usageOf(c *cobra.Command, what string) error {
	return &usageError{fmt.Errorf("%s: the usage is %s (see %s --help)", what, c.UseLine(), c.CommandPath())}
}

// argsMistake says which argument is too much, or that one is missing.
func argsMistake(c *cobra.Command, takes cobra.PositionalArgs, args []string, err error) error {
	if told := new(usageError); errors.As(err, &told) {
		return err
	}
	for n := range args {
		if takes(c, args[:n]) == nil {
			return usageOf(c, fmt.Sprintf("there is nothing to do with %q", args[n]))
		}
	}
	return usageOf(c, "an argument is missing")
}

// oneDash is the flag whose name stands after one dash, as in -config FILE: its letter took the rest for its value; "": none.
func oneDash(c *cobra.Command) (name string) {
	c.Flags().Visit(func(f *pflag.Flag) {
		if typed, _, _ := strings.Cut(f.Shorthand+f.Value.String(), "="); f.Shorthand != "" && typed == f.Name { // not --dir dir, which has no letter
			name = f.Name
		}
	})
	return name
}

// flagsMissing says which flags must be given that are not, or cannot be given together; "": none.
func flagsMissing(c *cobra.Command) string {
	var missing []string
	groups := map[string]int{} // of which one must be given, how many are
	alone := map[string][]string{}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Annotations[cobra.BashCompOneRequiredFlag] != nil && !f.Changed {
			missing = append(missing, "--"+f.Name)
		}
		for _, g := range f.Annotations["cobra_annotation_one_required"] {
			if groups[g] += 0; f.Changed {
				groups[g]++
			}
		}
		for _, g := range f.Annotations["cobra_annotation_mutually_exclusive"] {
			if f.Changed {
				alone[g] = append(alone[g], "--"+f.Name)
			}
		}
	})
	if len(missing) > 0 {
		return strings.Join(missing, ", ") + " must be given"
	}
	for _, g := range slices.Sorted(maps.Keys(groups)) {
		if groups[g] == 0 {
			return "--" + strings.ReplaceAll(g, " ", ", --") + ": one of them must be given"
		}
	}
	for _, g := range slices.Sorted(maps.Keys(alone)) {
		if given := alone[g]; len(given) > 1 {
			return strings.Join(given, " and ") + " cannot be given together"
		}
	}
	return ""
}

// flagMistake says what is wrong with a flag, and what can be given.
func flagMistake(c *cobra.Command, err error) string {
	var unknown *pflag.NotExistError
	var bare *pflag.ValueRequiredError
	var value *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		return unknownFlag(c, unknown)
	case errors.As(err, &bare):
		what, _ := pflag.UnquoteUsage(bare.GetFlag())
		return fmt.Sprintf("--%s: give a value: --%[1]s %s", bare.GetFlag().Name, strings.ToUpper(what))
	case errors.As(err, &value):
		return fmt.Sprintf("--%s %q: %s", value.GetFlag().Name, value.GetValue(), wanted(value))
	}
	return err.Error()
}

func unknownFlag(c *cobra.Command, e *pflag.NotExistError) string {
	typed, dashes := e.GetSpecifiedName(), "--"
	if all := e.GetSpecifiedShortnames(); all != "" { // as in -relays
		typed, dashes = all, "-"
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
		if dashes == "-" && f.Shorthand+typed == f.Name { // as in -help, of which -h was taken
			typed = f.Name
		}
	})
	what := fmt.Sprintf("there is no flag %s%s", dashes, typed)
	if near := strict.Near(strings.ToLower(typed), names); near != "" && len(typed) > 1 {
		return what + "; did you mean --" + near + "?"
	}
	return what
}

// wanted says what a flag takes that was given something else.
func wanted(e *pflag.InvalidValueError) string {
	f := e.GetFlag()
	switch f.Value.Type() {
	case "duration":
		what := "give a time with its unit, such as 5s, 2m or 1h30m"
		if _, err := time.ParseDuration(e.GetValue() + "s"); err == nil {
			what += fmt.Sprintf("; did you mean --%s %ss?", f.Name, e.GetValue())
		}
		return what
	case "int", "int64":
		return "give a whole number, such as 3"
	case "uint16":
		return "give a whole number from 0 to 65535"
	case "uint64":
		return "give a whole number that is not negative"
	case "float64":
		return "give a number, such as 2 or 0.5"
	case "bool":
		return fmt.Sprintf("give --%s alone, or --%[1]s=true or --%[1]s=false", f.Name)
	case "stringSlice":
		return "give texts with commas between them, and no quotation marks inside"
	}
	if cause := e.Unwrap(); cause != nil {
		return cause.Error()
	}
	return "this is nothing that it takes"
}
