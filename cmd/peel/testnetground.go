package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"peel/cmd/peel/internal/admin"
	"peel/cmd/peel/internal/conf"
	"peel/testnet"
	"peel/testnet/lab"
	"peel/testnet/plan"
	"peel/testnet/story"
)

// What a network of peel testnet run stands on.
const (
	groundVirtual    = "virtual"
	groundLoopback   = "loopback"
	groundProcesses  = "processes"
	groundNamespaces = "namespaces"
)

var grounds = []string{groundVirtual, groundLoopback, groundProcesses, groundNamespaces}

// real runs a plan in real time; left says what goroutines of it are still there.
func (r *labRun) real(ctx context.Context, cfg lab.Config, watched bool) (res *lab.Result, told *story.Story, left string, err error) {
	if cfg.Dir, err = os.MkdirTemp("", "peel-lab-"); err != nil {
		return nil, nil, "", err
	}
	defer os.RemoveAll(cfg.Dir)
	if err := r.refuse(cfg.Plan); err != nil {
		return nil, nil, "", err
	}
	cfg.Ground = r.groundOf(cfg.Plan)
	if r.ground != groundLoopback {
		if cfg.Processes, err = thisProgram(); err != nil {
			return nil, nil, "", err
		}
	}
	told = story.New(cfg.Plan.Name, cfg.Ground.Traits().Name, time.Now())
	cfg.Story = told
	defer func(s *story.Story) { s.End(time.Now()) }(told)
	l, err := lab.New(cfg)
	if err != nil {
		return nil, nil, "", &refusal{err}
	}
	if watched && r.window != nil {
		r.window.Show(told, l.Actions())
	}
	if res, err = l.Run(ctx); err != nil {
		return nil, nil, "", err
	}
	return res, told, l.Left(), nil
}

// groundOf is what a plan stands on in real time; nil: it does so in virtual time.
func (r *labRun) groundOf(p *plan.Plan) lab.Ground {
	switch r.ground {
	case groundLoopback:
		return lab.Loopback(p)
	case groundNamespaces:
		return lab.Namespaces(p)
	case groundProcesses:
		return lab.Apart(p)
	}
	return nil
}

// refuse says why a plan cannot run on the ground; nil: nothing is known yet that keeps it from that.
func (r *labRun) refuse(p *plan.Plan) error {
	g := r.groundOf(p)
	if g == nil {
		return nil
	}
	outside := r.ground != groundLoopback
	err := lab.Refuse(p, g, outside)
	if err == nil && outside {
		err = checkRates(p)
	}
	if err != nil {
		return &usageError{&refusal{err}}
	}
	return nil
}

// refusal is why a plan cannot run on a ground: nothing of it has been started.
type refusal struct{ error }

func (e *refusal) Unwrap() error { return e.error }

// rateText is bytes a second as a relay's file has them.
func rateText(n uint64) string { return strconv.FormatFloat(float64(n)/1e3, 'f', -1, 64) + " kB/s" }

// checkRates says which relay of a plan offers what a relay that is a process refuses in its file.
func checkRates(p *plan.Plan) error {
	check := func(whose string, n plan.Bytes) error {
		if n == 0 {
			return nil // as usual
		}
		if _, err := conf.ParseRate(rateText(uint64(n))); err != nil {
			return fmt.Errorf("bandwidth of %s: %w for a relay that is a process: change it, or use --ground virtual or loopback", whose, err)
		}
		return nil
	}
	if err := check("[relays]", p.Relays.Bandwidth); err != nil {
		return err
	}
	for _, r := range p.Relay {
		if err := check(r.Name, r.Bandwidth); err != nil {
			return err
		}
	}
	return nil
}

// thisProgram is how nodes are processes of this program.
func thisProgram() (*lab.Processes, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return &lab.Processes{Program: program, Write: writeSetup, Ask: askNode}, nil
}

// askNode asks a node by its folder.
func askNode(ctx context.Context, dir, page string, most int64) ([]byte, error) {
	a, err := admin.NewAsker(admin.Find(dir))
	if err != nil {
		return nil, err
	}
	a.Most = most
	return a.Get(ctx, page)
}

// writeSetup writes a node's folder, as peel init does, and returns the verb that runs it.
func writeSetup(dir string, s *lab.Setup) (args []string, err error) {
	text, err := s.Network.Encode()
	if err != nil {
		return nil, err
	}
	if err := put(filepath.Join(dir, "network.toml"), string(text)); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, s.Role+".toml")
	args = []string{s.Role, "--config", config}
	if s.Script != "" {
		args = append(args, "--villain", s.Script, "--villain-seed", strconv.FormatUint(s.Seed, 10))
	}
	const network, keys, state, level = "network.toml", "keys", "state", "info"
	at := s.Addr.String()
	switch s.Role {
	case "authority":
		a := testnet.Authority{Nickname: s.Name, Identity: s.Keys.Identity, Signing: s.Signing, Certificate: s.Certificate, Link: s.Keys.Link}
		if err := a.Save(filepath.Join(dir, keys)); err != nil {
			return nil, err
		}
		f := conf.Authority{Network: network, Keys: keys, State: state, Listen: []string{at}, Private: true, Log: level, Params: s.Params, Measure: s.Measure}
		return args, put(config, f.Text())
	case "relay":
		f := conf.Relay{
			Network: network, Keys: keys, State: state, Nickname: s.Name, Listen: []string{at}, Exit: s.Exit, NoAddr: s.Shared, Log: level,
		}
		if s.Bandwidth > 0 {
			f.Bandwidth = rateText(s.Bandwidth)
		}
		for _, id := range s.Family {
			f.Family = append(f.Family, id.String())
		}
		return args, writeRelay(dir, f, s.Keys)
	}
	f := conf.Client{Network: network, State: state, SOCKS: at, Log: level}
	return args, put(config, f.Text())
}
