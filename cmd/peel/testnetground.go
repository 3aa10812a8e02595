package main

import (
	"context"
	"os"
	"time"

	"peel/testnet/lab"
	"peel/testnet/story"
)

// What a network of peel testnet run stands on.
const (
	groundVirtual    = "virtual"
	groundLoopback   = "loopback"
	groundNamespaces = "namespaces"
)

var grounds = []string{groundVirtual, groundLoopback, groundNamespaces}

// real runs a plan in real time; left says what goroutines of it are still there.
func (r *labRun) real(ctx context.Context, cfg lab.Config, watched bool) (res *lab.Result, told *story.Story, left string, err error) {
	dir, err := os.MkdirTemp("", "peel-lab-")
	if err != nil {
		return nil, nil, "", err
	}
	defer os.RemoveAll(dir)
	cfg.Dir = dir
	switch r.ground {
	case groundLoopback:
		cfg.Ground = lab.Loopback(cfg.Plan)
	case groundNamespaces:
		cfg.Ground = lab.Namespaces(cfg.Plan)
	}
	told = story.New(cfg.Plan.Name, cfg.Ground.Traits().Name, time.Now())
	cfg.Story = told
	defer func(s *story.Story) { s.End(time.Now()) }(told)
	l, err := lab.New(cfg)
	if err != nil {
		return nil, nil, "", err
	}
	watched = watched && r.window != nil
	if watched {
		r.window.Show(told, l.Actions())
	}
	if res, err = l.Run(ctx); err != nil {
		return nil, nil, "", err
	}
	if watched { // who watches has goroutines too
		return res, told, "", nil
	}
	return res, told, l.Left(), nil
}
