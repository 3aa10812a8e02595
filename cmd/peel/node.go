package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"peel/cell/contain"
	"peel/cmd/peel/internal/conf"
)

// logger writes what a node has to say at a level of the configuration ("": info), which can be set later: in colour on a
// terminal, as plain key=value lines elsewhere.
func logger(w io.Writer, level string) (*slog.Logger, *slog.LevelVar) {
	l := new(slog.LevelVar)
	setLevel(l, level)
	to := w
	if s, ok := w.(*screen); ok {
		to = s.w
	}
	if f, ok := to.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" {
		return slog.New(tint.NewTextHandler(w, &tint.Options{Level: l, TimeFormat: "15:04:05Z07:00", ReplaceAttr: inPlainWords})), l
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l, ReplaceAttr: inPlainWords})), l
}

// inPlainWords has every error in a log say what peel would print of it: whoever reads the log of a node need not know our packages.
func inPlainWords(_ []string, a slog.Attr) slog.Attr {
	if err, ok := a.Value.Any().(error); ok {
		a.Value = slog.StringValue(plainly(err))
	}
	return a
}

// setLevel sets a level of the configuration.
func setLevel(l *slog.LevelVar, level string) {
	to := slog.LevelInfo
	if level != "" {
		if err := to.UnmarshalText([]byte(level)); err != nil {
			panic(err) // cannot be: the configuration was checked
		}
	}
	l.Set(to)
}

// listenLinks opens the addresses where links arrive.
func listenLinks(addrs []string) ([]net.Listener, error) {
	var ls []net.Listener
	for _, a := range addrs {
		l, err := net.Listen(networkOf("tcp", a), a)
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("listen %s: another program listens there: end it, or change listen in the configuration", a)
		} else if err != nil {
			err = fmt.Errorf("listen %s: %w", a, cannotListen(err))
		}
		if err != nil {
			for _, l := range ls {
				l.Close()
			}
			return nil, err
		}
		ls = append(ls, l)
	}
	return ls, nil
}

// configFlag adds the flag that names a node's configuration file.
func configFlag(c *cobra.Command, path *string) {
	usual := usualConfig(c.Name())
	c.Flags().StringVarP(path, "config", "c", usual, "the configuration `file`, as peel init writes it")
	if usual != "" {
		return
	}
	if err := c.MarkFlagRequired("config"); err != nil {
		panic(err) // cannot be: the flag was just added
	}
}

// usualConfig is the configuration of a node that a service manager starts: of relay.toml and so on, the one in $CONFIGURATION_DIRECTORY
// or else in $STATE_DIRECTORY. Empty: there is none.
func usualConfig(verb string) string {
	for _, name := range []string{"CONFIGURATION_DIRECTORY", "STATE_DIRECTORY"} {
		dir, _, _ := strings.Cut(os.Getenv(name), ":") // of several the first
		if dir == "" {
			continue
		}
		path := filepath.Join(dir, verb+".toml")
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

// inUse makes what is wrong with a configuration the user's mistake, for the exit status.
func inUse(err error) error {
	var e *conf.Error
	if errors.As(err, &e) {
		return &usageError{err}
	}
	return err
}

// together runs the parts of a node until ctx ends or one of them fails, and waits for all.
func together(ctx context.Context, parts ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg contain.Group
	for _, p := range parts {
		wg.Go(func(bug *contain.Panic) {
			slog.Error("a bug: please report this", "panic", bug.Value, "stack", bug.Stack)
			cancel(bug)
		}, func() {
			if err := p(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	<-ctx.Done()
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
