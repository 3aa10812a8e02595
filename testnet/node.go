package testnet

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"peel/client"
	"peel/directory"
	"peel/directory/authority"
	"peel/relay"
)

// authority makes the node of one authority.
func (n *Net) authority(a *Authority, l net.Listener) (*node, error) {
	cfg := relay.Config{
		Network: n.layout.Network, Keys: relay.Keys{Link: a.Link}, Listeners: []net.Listener{l},
		Dial: n.dialFrom(a.Addr.Addr()), Tap: n.cfg.Watch.tap(a.Nickname), Log: n.cfg.Log(a.Nickname),
	}
	dir, err := n.folder(a.Nickname)
	if err != nil {
		return nil, err
	}
	cfg.Measure = n.cfg.Measure
	na, err := relay.NewAuthority(cfg, authority.Config{
		Certificate: a.Certificate, SigningKey: a.Signing, Dir: dir, PrivateAddrs: true, Params: n.layout.Params(),
	})
	if err != nil {
		return nil, err
	}
	return &node{name: a.Nickname, run: na.Run}, nil
}

// relay makes the node of one relay.
func (n *Net) relay(r *Relay, l net.Listener) (*node, error) {
	cfg := relay.Config{
		Network: n.layout.Network, Keys: r.Keys, Listeners: []net.Listener{l}, Nickname: r.Nickname,
		Dial: n.dialFrom(r.Addr.Addr()), Tap: n.cfg.Watch.tap(r.Nickname), Heard: n.cfg.Watch.heard(r.Nickname),
		Log: n.cfg.Log(r.Nickname),
	}
	dir, err := n.folder(r.Nickname)
	if err != nil {
		return nil, err
	}
	cfg.Dir = dir
	if r.Exit {
		p, err := directory.ParsePolicy(ExitPolicy)
		if err != nil {
			return nil, fmt.Errorf("testnet: %w", err)
		}
		cfg.Exit, cfg.Resolver = p, n.cfg.Resolver
	}
	nr, err := relay.New(cfg)
	if err != nil {
		return nil, err
	}
	return &node{name: r.Nickname, run: nr.Run}, nil
}

// folder makes a node's folder below Dir; "": nothing is kept.
func (n *Net) folder(name string) (string, error) {
	if n.cfg.Dir == "" {
		return "", nil
	}
	dir := filepath.Join(n.cfg.Dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("testnet: %w", err)
	}
	return dir, nil
}

// node is a relay or an authority at work.
type node struct {
	name string
	run  func(context.Context) error

	mu   sync.Mutex
	stop context.CancelFunc // nil: not running
	done chan struct{}
}

// start runs the node until ctx ends or it is killed.
func (nd *node) start(ctx context.Context, failed func(error)) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	ctx, nd.stop = context.WithCancel(ctx)
	nd.done = make(chan struct{})
	go func() {
		defer close(nd.done)
		if err := nd.run(ctx); err != nil && ctx.Err() == nil {
			failed(fmt.Errorf("testnet: %s: %w", nd.name, err))
		}
	}()
}

// kill ends the node and waits until it is gone.
func (nd *node) kill() {
	nd.mu.Lock()
	stop, done := nd.stop, nd.done
	nd.mu.Unlock()
	if stop != nil {
		stop()
		<-done
	}
}

// Run runs the network until ctx ends or a node fails, and returns when the last goroutine of it is gone.
func (n *Net) Run(outer context.Context) error {
	ctx, cancel := context.WithCancelCause(outer)
	defer cancel(nil)
	nodes := append(append([]*node(nil), n.authorities...), n.relays...)
	nodes = append(nodes, &node{name: "client", run: n.client.Run})
	for _, nd := range nodes {
		nd.start(ctx, func(err error) { cancel(err) })
	}
	<-ctx.Done()
	for _, nd := range nodes {
		nd.kill()
	}
	if outer.Err() != nil {
		return nil
	}
	return context.Cause(ctx)
}

// Client is the network's client.
func (n *Net) Client() *client.Client { return n.client }

// Layout is what the network is made of.
func (n *Net) Layout() *Layout { return n.layout }

// Kill ends the relay with the nickname given at once, as if its process had been killed: its connections break, and it
// says no word on them before.
func (n *Net) Kill(nickname string) error {
	for _, nd := range n.relays {
		if nd.name == nickname {
			nd.kill()
			return nil
		}
	}
	return fmt.Errorf("testnet: no relay is called %q", nickname)
}
