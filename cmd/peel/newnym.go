package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"

	"github.com/spf13/cobra"

	"peel/client"
)

// newCircuits is said when a client has begun one.
const newCircuits = "new identity: circuits of before take no new streams"

func newnymCommand() *cobra.Command {
	node := which{kind: "client"}
	c := &cobra.Command{
		Use: "newnym", Short: "Have a running client use new circuits from now on", Args: cobra.NoArgs,
		Long: `Has a running client put what is asked for from now on on other circuits than all that was before, and
forget the answers of its DNS port. Connections that are open stay so, and so do the guards. A client does
it once in 10 seconds: the command waits, and returns when it is done. The signal SIGUSR2 does the same.

It does not change what programs tell about you: end them, or use new ones, as well.`,
		RunE: func(c *cobra.Command, _ []string) error {
			a, err := node.ask()
			if err != nil {
				return err
			}
			return act(c, a, "newnym")
		},
	}
	node.flags(c)
	return c
}

// onNewnym takes the signal for a new identity, where there is one, until stop is called. A signal that comes while one waits is
// the same.
func onNewnym() (signals chan os.Signal, stop func()) {
	signals = make(chan os.Signal, 1)
	if len(newnymSignals) > 0 {
		signal.Notify(signals, newnymSignals...)
	}
	return signals, func() { signal.Stop(signals) }
}

// heedNewnym does what the signal asks for until ctx ends.
func heedNewnym(ctx context.Context, signals <-chan os.Signal, c *client.Client, log *slog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-signals:
		}
		if err := c.NewIdentity(ctx); err == nil {
			log.Info(newCircuits)
		}
	}
}
