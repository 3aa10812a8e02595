package testnet

import (
	"context"
	"sync"
	"testing"
	"time"

	"peel/client"
)

// another starts one more client and waits until it is ready. It ends with the test, or when it is told to.
func another(t *testing.T, cfg client.Config) (c *client.Client, stop func()) {
	t.Helper()
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	wait, done := context.WithTimeout(ctx, 4*time.Minute)
	defer done()
	if err := c.Ready(wait); err != nil {
		t.Fatal(err)
	}
	return c, stop
}

// A client that ran before starts from its folder: it asks nobody for the directory before its first circuit is ready.
func TestWarmStartAsksForNoDirectory(t *testing.T) {
	dir := t.TempDir()
	n := share(t)
	var stages []string
	start := func() time.Duration {
		stages = nil
		var mu sync.Mutex
		begin := time.Now()
		_, stop := another(t, client.Config{Network: n.Layout().Network, Dir: dir, Progress: func(p client.Progress) {
			mu.Lock()
			defer mu.Unlock()
			stages = append(stages, p.Stage)
		}})
		defer stop()
		return time.Since(begin)
	}
	cold := start()
	if len(stages) < 6 {
		t.Errorf("the first start: %v", stages)
	}
	warm := start()
	t.Logf("first start %v, warm start %v", cold, warm)
	for _, s := range stages {
		if s == "directory" || s == "consensus" {
			t.Errorf("it asked for a directory: %v", stages)
		}
	}
	if len(stages) == 0 || stages[len(stages)-1] != "done" {
		t.Errorf("stages: %v", stages)
	}
}
