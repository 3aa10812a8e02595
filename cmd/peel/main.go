// Command peel is the whole of Peel in one binary: a relay, a directory authority, a client with a SOCKS5 port, and a
// network on this machine. Each verb has a file of its own that turns flags into a configuration and runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"peel/cell/contain"
	"peel/cmd/peel/internal/conf"
)

func main() {
	settle()
	status := 1
	if p := contain.Do(func() { status = run() }); p != nil {
		fmt.Fprintf(os.Stderr, "peel: %v: please report this\n%s", p, p.Stack)
	}
	os.Exit(status)
}

// run is main without the exit, so that deferred work is done. Its status is 0 for success, 1 for a failure, 2 for a
// wrong command line or configuration, or that of the command which peel testnet ran.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	done, over := watchHangup(ctx, stop), watchTerminate(ctx, stop)
	defer func() { stop(); done(); over() }()
	contain.OnDone(ctx, nil, stop) // the second signal ends us at once
	c, err := root().ExecuteContextC(ctx)
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
	if ofCobra(err) {
		fmt.Fprintln(os.Stderr, "peel:", inOurWords(c, err))
		return 2
	}
	fmt.Fprintln(os.Stderr, "peel:", plainly(err))
	var usage *usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// rooms are those whose names begin the errors of their packages.
var rooms = regexp.MustCompile(`(?m)^(?:(?:relay|authority|admin|client|testnet|lab|circuit|stream|link|exit|dns|guard|cache): )+`)

// plainly is an error as its user reads it.
func plainly(err error) string { return rooms.ReplaceAllString(conf.Plain(err), "") }

// ofCobra says whether an error is cobra's own, of a wrong command line; it has no type for them.
func ofCobra(err error) bool {
	for _, begin := range []string{"unknown command", "required flag", "accepts ", "requires at least "} {
		if strings.HasPrefix(err.Error(), begin) {
			return true
		}
	}
	return false
}

// inOurWords tells of cobra's errors, which say neither what is missing nor how it is given, with the command's usage.
func inOurWords(c *cobra.Command, err error) error {
	if c == nil || !c.HasParent() {
		return err // it names the verb that may have been meant
	}
	what := "there is an argument too few or too many"
	if s := err.Error(); strings.HasPrefix(s, "required flag") {
		var names []string
		for i, part := range strings.Split(s, "\"") {
			if i%2 == 1 {
				names = append(names, "--"+part)
			}
		}
		what = strings.Join(names, ", ") + " must be given"
	} else if extra, ok := strings.CutPrefix(s, "unknown command "); ok {
		extra, _, _ = strings.Cut(extra, " for ")
		what = "there is nothing to do with " + extra
	}
	return fmt.Errorf("%s: the usage is %s (see %s --help)", what, c.UseLine(), c.CommandPath())
}

// verbsOnly makes a command that is nothing without one of its verbs.
func verbsOnly(c *cobra.Command) {
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return &usageError{fmt.Errorf("unknown command %q for %q (see %[2]s --help)", args[0], c.CommandPath())}
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
}

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

func root() *cobra.Command {
	c := &cobra.Command{
		Use:   "peel",
		Short: "An onion-routed anonymity network: relay, client and test network in one program",
		Long: `Peel carries TCP connections through three relays, so that no single one of them
knows both who you are and whom you talk to.

Try it:  peel testnet        starts a whole network on this machine`,
		SilenceUsage: true, SilenceErrors: true,
		Version:           version(),
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	c.SetVersionTemplate("{{.Version}}\n")
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w (see %s --help)", err, c.CommandPath())}
	})
	c.AddCommand(
		testnetCommand(), relayCommand(), authorityCommand(), clientCommand(),
		initCommand(), checkCommand(), doctorCommand(),
		statusCommand(), reloadCommand(), newnymCommand(),
		circuitsCommand(), envCommand(),
		consensusCommand(),
		keysCommand(),
		versionCommand(), manCommand(),
	)
	return c
}
