package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"peel/circuit"
	"peel/client"
	"peel/testnet/plan"
	"peel/testnet/story"
)

// Download is what became of one exchange with a service.
type Download struct {
	Load, Index int
	Client      string
	Complete    bool
	Tries       int // 1: it went well at once
	First, Took time.Duration
	Err         error // of the last try, if it is not complete
}

// startClients makes the clients and lets them run.
func (l *Lab) startClients(ctx context.Context) error {
	for i, addr := range l.clientAddrs {
		name := fmt.Sprintf("client%d", i+1)
		if err := l.startClient(ctx, name, addr); err != nil {
			return err
		}
		for _, v := range l.plan.Villains {
			if v.Node == name {
				l.villains = append(l.villains, &villainClient{lab: l, name: name, addr: addr.Addr(), script: v.Script, least: cmp.Or(v.Refused, l.plan.Expect.Refused)})
				l.story.Villain(time.Now(), name, v.Script)
			}
		}
	}
	return nil
}

// startClient starts one, in this process or as one.
func (l *Lab) startClient(ctx context.Context, name string, addr netip.AddrPort) error {
	if l.cfg.Processes != nil {
		return l.startDoor(name, addr)
	}
	dir, err := l.folder(name)
	if err != nil {
		return err
	}
	h := l.clientHosts[name]
	cfg := client.Config{
		Network: l.network, Dir: dir, Dial: l.dialer(addr.Addr()), Log: l.log(name), Now: h.now, Write: h.write, Chance: l.luck(name, 0),
		Events: func(e client.Event) { l.clientEvent(name, e) },
	}
	c, err := client.New(cfg)
	if err != nil {
		return fmt.Errorf("lab: %s: %w", name, err)
	}
	l.clients = append(l.clients, &inner{c, name})
	l.story.State(name, story.Up)
	l.running.Go(func() {
		if err := c.Run(ctx); err != nil {
			l.broken("a node ended by itself", "%s: %v", name, err)
		}
	})
	return nil
}

// load does one load of the plan.
func (l *Lab) load(ctx context.Context, which int, end time.Time) {
	ld := &l.plan.Loads[which]
	if !sleepUntil(ctx, l.begin().Add(time.Duration(ld.At))) {
		return
	}
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(ld.AtOnce, ld.Count) {
		wg.Go(func() {
			for i := range next {
				if time.Since(end) > grace {
					l.never(which, i)
					continue
				}
				l.download(ctx, which, i)
				if ld.Pause > 0 {
					sleepUntil(ctx, earlier(time.Now().Add(time.Duration(ld.Pause)), end))
				}
			}
		})
	}
	for i := range ld.Count {
		if !time.Now().Before(end) && ld.Pause > 0 { // a load that goes on for ever ends with the run
			break
		}
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wg.Wait()
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// grace is how long after the end of the run downloads may still begin, of those that it should have had.
const grace = time.Minute

// never notes a download that was not begun, as the run was over.
func (l *Lab) never(which, index int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.result.Downloads = append(l.result.Downloads, Download{Load: which, Index: index, Err: errors.New("the run was over")})
}

// download does one exchange, and again where it failed and may be tried again.
func (l *Lab) download(ctx context.Context, which, index int) {
	ld := &l.plan.Loads[which]
	k := index % len(l.clients)
	if ld.From != "" {
		fmt.Sscanf(ld.From, "client%d", &k)
		k--
	}
	d := Download{Load: which, Index: index, Client: fmt.Sprintf("client%d", k+1)}
	begun := time.Now()
	var path []string
	var wrong *wrongError
	for d.Tries < ld.Tries && !d.Complete && ctx.Err() == nil {
		d.Tries++
		d.First, path, d.Err = l.try(ctx, l.clients[k], ld, uint64(which)<<32|uint64(index))
		d.Complete = d.Err == nil
		if errors.As(d.Err, &wrong) {
			l.broken("bytes are right and in order", "download %d of load %d, of %s: %v", index+1, which+1, d.Client, wrong)
			break
		}
		if !d.Complete && d.Tries < ld.Tries {
			sleepUntil(ctx, time.Now().Add(200*time.Millisecond))
		}
	}
	if ctx.Err() != nil && !d.Complete {
		return // the run was stopped
	}
	d.Took = time.Since(begun)
	sd := story.Download{At: time.Now(), Client: d.Client, Path: path, Bytes: int64(ld.Size), FirstByte: d.First, Took: d.Took}
	if d.Err != nil {
		sd.Err = story.Words(d.Err)
		l.say(story.OfDownload, d.Client, "download %d of load %d failed after %d tries: %v", index+1, which+1, d.Tries, d.Err)
	}
	l.story.Downloaded(sd)
	l.mu.Lock()
	l.result.Downloads = append(l.result.Downloads, d)
	l.mu.Unlock()
}

// try does one exchange once.
func (l *Lab) try(ctx context.Context, c user, ld *plan.Load, key uint64) (first time.Duration, path []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(ld.Timeout))
	defer cancel()
	s := l.services[ld.To]
	begun := time.Now()
	conn, err := c.DialContext(ctx, "tcp", s.at().String())
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close()
	path = c.pathOf(conn)
	defer closeWith(ctx, conn)()
	at, err := s.use(conn, key, ld.Size)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	if !at.IsZero() {
		first = at.Sub(begun)
	}
	return first, path, err
}

// closeWith closes a connection when ctx ends, in a goroutine that the func returned waits for.
func closeWith(ctx context.Context, c net.Conn) func() {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		c.Close()
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

// clientEvent hears of the circuits of a client.
func (l *Lab) clientEvent(name string, e client.Event) {
	path := make([]string, len(e.Path))
	for i, hop := range e.Path {
		path[i] = hop.Nickname
	}
	if e.Kind == client.EventCircuitBuilt {
		l.checkPath(name, e.Path)
	}
	var breach *circuit.ProtocolError
	if e.Kind == client.EventCircuitClosed && errors.As(e.Err, &breach) {
		l.mu.Lock()
		l.result.Torn++
		l.mu.Unlock()
	}
	l.tellCircuit(name, path, e)
}
