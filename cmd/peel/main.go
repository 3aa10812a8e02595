// Command peel is the whole of Peel in one binary: a relay, a directory authority, a client with a SOCKS5 port, and a
// network on this machine. Each verb has a file of its own that turns flags into a configuration and runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"peel/cell/contain"
	"peel/cmd/peel/internal/conf"
	"peel/testnet/story"
)

func main() {
	settle()
	status := 1
	if p := contain.Do(func() { status = run() }); p != nil {
		fmt.Fprintf(os.Stderr, "peel: %v: please report this\n%s", p, p.Stack)
	}
	os.Exit(status)
}

// A status is what peel ends with, and what that means.
type status struct{ number, means string }

var statuses = []status{
	{"0", "it did what it was asked, or one signal ended it (SIGTERM once what ran had ended)"},
	{"1", "that failed, or was not as it should be"},
	{"2", "the command line, or a file of configuration, is wrong"},
	{"130, 143", "a second signal, Ctrl-C or SIGTERM, ended it before it was done"},
	{"others", "of a command that peel testnet runs: its own, or 128 and the number of the signal"},
}

// statusTable is statuses, for help.
func statusTable() string {
	b := new(strings.Builder)
	b.WriteString("Exit status:\n")
	for _, s := range statuses {
		fmt.Fprintf(b, "  %-9s %s\n", s.number, s.means)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// run is main without the exit, so that deferred work is done. Its status is one of statuses.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	done, over := watchHangup(ctx, stop), watchTerminate(stop)
	defer func() { stop(); done(); over() }()
	err := root().ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var status *exitError
	if errors.As(err, &status) {
		if status.err != nil {
			fmt.Fprintln(os.Stderr, "peel:", plainly(status.err))
		}
		return status.code
	}
	for _, e := range each(err) {
		fmt.Fprintln(os.Stderr, "peel:", plainly(e))
	}
	var usage *usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// each are the errors to tell one by one: the mistakes of a file, and errors that are several.
func each(err error) (all []error) {
	for wrong, ok := err.(*usageError); ok; wrong, ok = err.(*usageError) {
		err = wrong.error
	}
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range several.Unwrap() {
			all = append(all, each(e)...)
		}
		return all
	}
	all = []error{err}
	if file, ok := err.(*conf.Error); ok {
		for _, e := range file.More() {
			all = append(all, e)
		}
	}
	return all
}

// plainly is an error as its user reads it.
func plainly(err error) string {
	text := conf.Plain(errors.New(story.Words(err)))
	var call *fs.PathError
	if !errors.As(err, &call) || !strings.HasSuffix(text, call.Err.Error()) { // else it says what to do
		return text
	}
	switch {
	case errors.Is(call, fs.ErrPermission) && call.Op == "mkdir":
		text += ": choose another place, or run peel as a user who may"
	case errors.Is(call, fs.ErrPermission):
		text += ": run peel as the user that this belongs to, or as root"
	case errors.Is(call, syscall.ENOSPC):
		text += ": make room there"
	case errors.Is(call, syscall.EROFS), errors.Is(call, syscall.ENOTDIR), call.Op == "mkdir":
		text += ": choose another place"
	case errors.Is(call, fs.ErrNotExist):
		text += ": look whether its name is right"
	}
	return text
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:   "peel",
		Short: "An onion-routed anonymity network: relay, client and test network in one program",
		Long: `Peel carries TCP connections through three relays, so that no single one of them
knows both who you are and whom you talk to.

Try it:  peel testnet        starts a whole network on this machine

` + statusTable(),
		SilenceUsage: true, SilenceErrors: true,
		Version: version(),
	}
	c.SetVersionTemplate("{{.Version}}\n")
	c.AddCommand(
		testnetCommand(), relayCommand(), authorityCommand(), clientCommand(),
		initCommand(), checkCommand(), doctorCommand(),
		statusCommand(), reloadCommand(), newnymCommand(),
		circuitsCommand(), envCommand(),
		consensusCommand(),
		keysCommand(),
		versionCommand(), manCommand(),
	)
	verbsOnly(c)
	c.SetHelpCommand(helpCommand())
	c.InitDefaultHelpCmd()
	c.InitDefaultCompletionCmd()
	for _, v := range c.Commands() {
		if v.Name() == "completion" {
			verbsOnly(v)
			tellCompletions(v)
		}
	}
	strictly(c)
	for _, v := range verbs(c) {
		v.Long = folded(v.Long, helpWidth)
	}
	return c
}
