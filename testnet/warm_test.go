package testnet

import (
	"context"
	"sync"
	"testing"
	"time"

	"peel/client"
)

// A client that ran before starts from its folder: it asks nobody for the directory before its first circuit is ready.
func TestWarmStartAsksForNoDirectory(t *testing.T) {
	n := run(t, Config{Size: Size{Authorities: 4, Relays: 6, Exits: 2}})
	dir := t.TempDir()
	var stages []string
	start := func() time.Duration {
		stages = nil
		var mu sync.Mutex
		begin := time.Now()
		c, err := client.New(client.Config{Network: n.Layout().Network, Dir: dir, Progress: func(p client.Progress) {
			mu.Lock()
			defer mu.Unlock()
			stages = append(stages, p.Stage)
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() { c.Run(ctx) })
		if err := c.Ready(ctx); err != nil {
			t.Fatal(err)
		}
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
