package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"peel/cell/contain"
	"peel/cmd/peel/internal/conf"
	"peel/relay"
	"peel/testnet"
	"peel/testnet/bench"
)

// mib is a flag's number of bytes, given in MiB or with a unit.
type mib int64

func (m *mib) String() string { return fmt.Sprintf("%d MiB", int64(*m)>>20) }
func (m *mib) Type() string   { return "size" }

func (m *mib) Set(s string) error {
	units := []struct {
		name  string
		shift int
	}{{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"", 20}}
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 1 || n > math.MaxInt64>>u.shift {
			break
		}
		*m = mib(n << u.shift)
		return nil
	}
	return errors.New("must be a whole number with KiB, MiB or GiB, as in 64MiB; without a unit it is MiB")
}

// benchrun is the bench verb at work.
type benchrun struct {
	relays          int
	size            mib
	runs            int
	quick, together bool
	json            bool
	profile         string // a file
	dir             string // of the nodes' folders
	out             io.Writer
	bar             bar
}

func benchCommand() *cobra.Command {
	full := bench.Full()
	b := &benchrun{relays: 6, size: mib(full.Size), runs: full.Runs}
	c := &cobra.Command{
		Use: "bench", Short: "Measure a network on this machine", Args: cobra.NoArgs,
		Long: `Starts a network of separate processes on loopback and measures it: download and
upload over no, one and three hops, many streams at once, the time to the first byte,
circuits built a second, and what each process takes of processor and memory. Every
figure that can be is also given as a ratio to that without a network.

Run it on a machine that does nothing else. docs/performance.md explains the figures.`,
		Example: "  peel testnet bench\n  peel testnet bench --quick --json",
		RunE: func(c *cobra.Command, _ []string) error {
			b.out, b.bar.w = untilNobodyReads(c.OutOrStdout(), func() {}), c.ErrOrStderr()
			cfg := full
			if b.quick {
				cfg = bench.Quick()
			}
			if !b.quick || c.Flags().Changed("size") {
				cfg.Size = int64(b.size)
			}
			if !b.quick || c.Flags().Changed("runs") {
				cfg.Runs = b.runs
			}
			return b.run(c.Context(), cfg)
		},
	}
	f := c.Flags()
	f.IntVar(&b.relays, "relays", b.relays, "relays, of which a third are exits")
	f.Var(&b.size, "size", "payload of each load; 10 and 50 streams share it")
	f.IntVar(&b.runs, "runs", b.runs, "how often each load is run; the median counts")
	f.BoolVar(&b.quick, "quick", false, "measure roughly, in some seconds: 4 MiB, once")
	f.BoolVar(&b.together, "in-process", false, "all nodes in this process")
	f.BoolVar(&b.json, "json", false, "print the figures as JSON")
	f.StringVar(&b.profile, "cpuprofile", "", "write a processor profile of this process, for go tool pprof, into this `file`")
	return c
}

func (b *benchrun) run(ctx context.Context, cfg bench.Config) error {
	s := testnet.Size{Authorities: 1, Relays: b.relays, Exits: max(1, b.relays/3)}
	if err := errors.Join(s.Check(), cfg.Check()); err != nil {
		return &usageError{err}
	}
	profile, err := b.openProfile()
	if err != nil {
		return err
	}
	defer profile.Close()
	if b.dir, err = os.MkdirTemp("", "peel-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	f, ok := b.bar.w.(*os.File)
	b.bar.terminal = ok && term.IsTerminal(int(f.Fd()))
	defer b.bar.clear()
	b.bar.show(bench.Step{Of: 1, Text: "starting the network"})
	cfg.Peel, cfg.Progress = relay.Version+revision(), b.bar.show

	with := b.withProcesses
	if b.together {
		with = b.inProcess
	}
	var report *bench.Report
	err = with(ctx, s, func(ctx context.Context, n bench.Network) error {
		stop, err := startProfile(profile)
		if err != nil {
			return err
		}
		report, err = bench.Run(ctx, n, cfg)
		return errors.Join(err, stop())
	})
	if ctx.Err() != nil {
		return errors.New("bench: interrupted")
	}
	if err != nil {
		return err
	}
	b.bar.clear()
	if !b.json {
		return report.WriteTable(b.out)
	}
	text, err := report.JSON()
	if err == nil {
		_, err = b.out.Write(text)
	}
	return err
}

// openProfile makes the file of the profile that was asked for, before there is a network to wait for; nil: none was.
func (b *benchrun) openProfile() (*os.File, error) {
	if b.profile == "" {
		return nil, nil
	}
	f, err := os.Create(b.profile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("--cpuprofile: %w: make the folder first, or choose another place", err)
	}
	if err != nil {
		return nil, fmt.Errorf("--cpuprofile: %w", err)
	}
	return f, nil
}

// startProfile begins a profile; f may be nil.
func startProfile(f *os.File) (stop func() error, err error) {
	if f == nil {
		return func() error { return nil }, nil
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, fmt.Errorf("--cpuprofile: %w", err)
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// starting is how long the network may take to come up: a busy machine misses some periods.
const starting = 3 * time.Minute

// period is from one directory to the next: not so often that it disturbs.
const period = 10 * time.Second

// alongside does something while a network runs, and ends the network then. An error of the network comes first.
func alongside(ctx context.Context, run, do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg contain.Group
	var failed error
	wg.Go(func(p *contain.Panic) {
		failed = p
		cancel(p)
	}, func() {
		if failed = run(ctx); failed != nil {
			cancel(failed)
		}
	})
	err := do(ctx)
	cancel(nil)
	wg.Wait()
	if failed != nil {
		return failed
	}
	return err
}

// withProcesses starts a network of separate processes from files as peel init network writes them.
func (b *benchrun) withProcesses(ctx context.Context, s testnet.Size, do func(context.Context, bench.Network) error) error {
	free := &freePorts{whole: testnet.HasLoopbackNet()}
	defer free.release()
	const voting = 2500 * time.Millisecond // for processes on a machine with few cores
	now := time.Now()
	first := now.Add(voting + 3*time.Second).Truncate(time.Second)
	l, err := testnet.Plan("bench", s, free.place, first, period, voting, now)
	if err != nil {
		return err
	}
	if err := writeNetwork(b.dir, l, "127.0.0.1:0", conf.Listen{Address: "127.0.0.1:0", Early: true}); err != nil {
		return err
	}
	var commands []bench.Command
	node := func(name, verb string, flags ...string) {
		dir := filepath.Join(b.dir, name)
		commands = append(commands, bench.Command{
			Name: name, Role: verb, Dir: dir, Args: append([]string{verb, "--config", filepath.Join(dir, verb+".toml")}, flags...),
		})
	}
	for _, a := range l.Authorities {
		node(a.Nickname, bench.RoleAuthority)
	}
	for _, r := range l.Relays {
		node(r.Nickname, bench.RoleRelay, "--one-hop") // which is measured too
	}
	node("client", bench.RoleClient)
	nodes := bench.NewNodes(commands)
	free.release()
	return alongside(ctx, nodes.Run, func(ctx context.Context) error {
		processes, err := nodes.Ready(ctx)
		if err != nil {
			return err
		}
		wait, cancel := context.WithTimeout(ctx, starting)
		defer cancel()
		ports, err := commands[len(commands)-1].WaitFor(wait, "ready: socks5://", 2)
		if err != nil {
			return err
		}
		early, _, _ := strings.Cut(ports[1], " ")
		return do(ctx, bench.Network{Directory: l.Network, SOCKS: ports[0], Early: early, Relays: s.Relays, Processes: processes})
	})
}

// inProcess starts a network in this process.
func (b *benchrun) inProcess(ctx context.Context, s testnet.Size, do func(context.Context, bench.Network) error) error {
	n, err := testnet.New(testnet.Config{Size: s, Period: period, OneHop: true})
	if err != nil {
		return err
	}
	d, err := openDoors(&conf.Client{SOCKS: "127.0.0.1:0", Listen: []conf.Listen{{Address: "127.0.0.1:0", Early: true}}}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer d.close()
	run := func(ctx context.Context) error {
		return together(ctx, append(d.servers(n.Client(), nil), n.Run)...)
	}
	return alongside(ctx, run, func(ctx context.Context) error {
		wait, cancel := context.WithTimeout(ctx, starting)
		defer cancel()
		if err := n.Ready(wait); err != nil {
			return err
		}
		return do(ctx, bench.Network{Directory: n.Layout().Network, SOCKS: d.ports[0].Addr().String(), Early: d.ports[1].Addr().String(), Relays: s.Relays})
	})
}

// freePorts finds a port for each node that no other program has, and holds it until release.
type freePorts struct {
	whole     bool // each node has an address of its own
	listeners []net.Listener
}

func (f *freePorts) place(i int) (netip.AddrPort, error) {
	host := "127.0.0.1"
	if f.whole {
		a, err := testnet.Loopback(0)(i)
		if err != nil {
			return netip.AddrPort{}, err
		}
		host = a.Addr().String()
	}
	var failed error
	for range 100 {
		port := 10_000 + rand.IntN(20_000) // systems give those from 32768 on to whoever asks for any, who shall not have it after release
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			failed = err
			continue
		}
		f.listeners = append(f.listeners, l)
		return l.Addr().(*net.TCPAddr).AddrPort(), nil
	}
	return netip.AddrPort{}, failed
}

func (f *freePorts) release() {
	for _, l := range f.listeners {
		l.Close()
	}
	f.listeners = nil
}

// bar shows how far a run has come: on a terminal in one line, elsewhere in a line a step.
type bar struct {
	w        io.Writer
	terminal bool
}

const barWidth = 24

func (b *bar) show(s bench.Step) {
	switch {
	case s.Text == "":
		b.clear()
	case b.terminal:
		full := barWidth * s.Done / s.Of
		fmt.Fprintf(b.w, "\r\x1b[K[%s%s] %2d/%d %s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), s.Done, s.Of, s.Text)
	default:
		fmt.Fprintf(b.w, "bench: %s\n", s.Text)
	}
}

// clear takes the line away, so that what is printed next begins a line.
func (b *bar) clear() {
	if b.terminal {
		fmt.Fprint(b.w, "\r\x1b[K")
	}
}
