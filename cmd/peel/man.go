package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"peel/directory/cache"
)

func manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages into a folder", Args: cobra.ExactArgs(1),
		Long: "Writes a page for each verb, as peel-relay.1, into a folder that is made if need be. The date in them is that of $SOURCE_DATE_EPOCH.",
		RunE: func(c *cobra.Command, args []string) error { return writeManual(c.Root(), args[0], manualDate()) },
	}
}

// tellCompletions has the verbs below peel completion say in our words what they do.
func tellCompletions(c *cobra.Command) {
	c.Short = "Print what completes commands in a shell: bash, zsh, fish or PowerShell"
	c.Long = c.Short + "."
	for shell, how := range map[string][3]string{
		"bash":       {"bash", "source <(peel completion bash)", "peel completion bash > /etc/bash_completion.d/peel"},
		"zsh":        {"zsh", "source <(peel completion zsh)", `peel completion zsh > "${fpath[1]}/_peel"`},
		"fish":       {"fish", "peel completion fish | source", "peel completion fish > ~/.config/fish/completions/peel.fish"},
		"powershell": {"PowerShell", "peel completion powershell | Out-String | Invoke-Expression", "peel completion powershell >> $PROFILE"},
	} {
		v, _, err := c.Find([]string{shell})
		if err != nil || v == c {
			continue
		}
		v.Short = "Print what completes commands in " + how[0]
		v.Long = fmt.Sprintf("%s.\n\nIn the shell that runs, until it ends:\n\n  %s\n\nIn all that are started from then on:\n\n  %s", v.Short, how[1], how[2])
		if shell == "bash" {
			v.Long += "\n\nbash needs its package bash-completion."
		}
	}
}

// manualDate is the date in the pages: not that of the day, as the same sources make the same pages.
func manualDate() string {
	n, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		n = 1767225600
	}
	return time.Unix(n, 0).UTC().Format("2006-01-02")
}

// writeManual writes a page of c and of each verb below it that is shown.
func writeManual(c *cobra.Command, dir, date string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, v := range verbs(c) {
		path := filepath.Join(dir, pageName(v)+".1")
		if err := cache.WriteFile(path, manual(v, date)); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// verbs are a command and those below it that are shown.
func verbs(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			all = append(all, verbs(sub)...)
		}
	}
	return all
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// manual is the page of one verb, in the man macros that every reader of manuals knows.
func manual(c *cobra.Command, date string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, ".TH %s 1 %s %s Peel\n", strings.ToUpper(roff(pageName(c))), date, roff(c.Root().Version[:strings.IndexAny(c.Root().Version+" ", " \n")]))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(pageName(c)), roff(c.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(c.UseLine()))
	if text := strings.TrimSpace(strings.TrimSuffix(c.Long, statusTable())); text != "" {
		b.WriteString(".SH DESCRIPTION\n")
		prose(&b, text)
	}
	if subs := verbs(c)[1:]; len(subs) > 0 {
		b.WriteString(".SH COMMANDS\n")
		for _, v := range subs {
			if v.Parent() == c {
				fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(v.CommandPath()), roff(v.Short))
			}
		}
	}
	options(&b, "OPTIONS", c.NonInheritedFlags())
	options(&b, "OPTIONS OF ALL VERBS", c.InheritedFlags())
	if c.Example != "" {
		b.WriteString(".SH EXAMPLES\n")
		prose(&b, c.Example)
	}
	b.WriteString(".SH EXIT STATUS\n")
	for _, s := range statuses {
		fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", s.number, roff(s.means))
	}
	var see []string
	if c.HasParent() {
		see = append(see, pageName(c.Parent()))
	}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			see = append(see, pageName(sub))
		}
	}
	slices.Sort(see)
	if len(see) > 0 {
		b.WriteString(".SH SEE ALSO\n")
		for i, page := range see {
			end := ","
			if i == len(see)-1 {
				end = ""
			}
			fmt.Fprintf(&b, ".BR %s (1)%s\n", roff(page), end)
		}
	}
	return b.Bytes()
}

// prose writes paragraphs after a heading; lines that are indented are shown as they are.
func prose(b *bytes.Buffer, text string) {
	first, apart, shown := true, false, false // a paragraph is to begin; lines are being shown as they are
	for line := range strings.Lines(strings.Trim(text, "\n") + "\n") {
		line = strings.TrimRight(line, "\n")
		indented := strings.HasPrefix(line, "  ")
		if line == "" {
			apart = true
			continue
		}
		if shown && !indented {
			b.WriteString(".fi\n")
		}
		if !first && (apart || shown != indented) {
			b.WriteString(".PP\n")
		}
		if indented && !shown {
			b.WriteString(".nf\n")
		}
		first, apart, shown = false, false, indented
		b.WriteString(roff(line) + "\n")
	}
	if shown {
		b.WriteString(".fi\n")
	}
}

func options(b *bytes.Buffer, title string, flags *pflag.FlagSet) {
	first := true
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		if first {
			fmt.Fprintf(b, ".SH %s\n", title)
			first = false
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		fmt.Fprintf(b, ".TP\n.B %s", roff(name))
		if value != "" {
			fmt.Fprintf(b, " %s", roff(value))
		}
		if usual := f.DefValue; usual != "" && usual != "false" && usual != "[]" && usual != "0" && usual != "0s" {
			usage += fmt.Sprintf(" (default %s)", usual)
		}
		fmt.Fprintf(b, "\n%s\n", roff(usage))
	})
}

var roffed = strings.NewReplacer(`\`, `\e`, "-", `\-`)

// roff is a line of text that no macro is in.
func roff(line string) string {
	s := roffed.Replace(line)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
