// Package bench measures a network on this machine: how fast it carries, how soon the first byte comes, what it costs. It
// puts its loads on the network through the SOCKS5 port of a client, and on circuits that it builds itself where a client
// offers no such choice; everything stays on loopback (docs/performance.md).
package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/net/proxy"

	"peel/cell"
	"peel/circuit/layer"
	"peel/client/path"
	"peel/directory"
)

// Network is what is measured.
type Network struct {
	Directory *directory.Network
	SOCKS     string    // the SOCKS5 port of its client, which is ready
	Early     string    // another that answers before the connection stands
	Relays    int       // that the directory lists when all have come
	Processes []Process // its nodes; none: all are in this process
}

// Process is a node that runs as a process of its own.
type Process struct {
	Name string // a relay's nickname
	Role string // RoleAuthority, RoleRelay or RoleClient
	PID  int
}

// Roles of a process.
const (
	RoleAuthority = "authority"
	RoleRelay     = "relay"
	RoleClient    = "client"
	roleBench     = "bench"
)

// Where the nodes are (Setup.Nodes).
const (
	InProcess = "in-process"
	Separate  = "processes"
)

// Config says how much is measured.
type Config struct {
	Size     int64         // bytes of a load, all its streams together
	Runs     int           // of each load; the median counts
	Limit    time.Duration // of one load: then it is cut off
	Warm     int           // streams on a warm circuit
	Fresh    int           // streams on circuits of their own
	Building time.Duration // how long circuits are built
	Circuits int           // and how many at most
	Peel     string        // version and commit, for the report
	Progress func(Step)    // called before each step and at the end, by Run's goroutine; nil: nobody
}

// Full is the run that figures are taken from: up to a minute or two.
func Full() Config {
	return Config{Size: 64 << 20, Runs: 3, Limit: 20 * time.Second, Warm: 100, Fresh: 50, Building: 3 * time.Second, Circuits: 20000}
}

// Quick is a run of a few seconds that shows that all is well; its figures are rough.
func Quick() Config {
	return Config{Size: 4 << 20, Runs: 1, Limit: 10 * time.Second, Warm: 20, Fresh: 10, Building: 300 * time.Millisecond, Circuits: 1000}
}

// Check refuses what cannot be measured.
func (c *Config) Check() error {
	switch {
	case c.Size < 1<<20 || c.Size > 16<<30:
		return fmt.Errorf("bench: a load of %d bytes: give 1 MiB to 16 GiB", c.Size)
	case c.Runs < 1 || c.Runs > 100:
		return fmt.Errorf("bench: %d runs: give 1 to 100", c.Runs)
	case c.Limit <= 0 || c.Warm < 1 || c.Fresh < 1 || c.Building <= 0 || c.Circuits < 1:
		return errors.New("bench: Limit, Warm, Fresh, Building and Circuits must be more than zero")
	}
	return nil
}

// Step is how far a run has come.
type Step struct {
	Done, Of int
	Text     string // what comes now; "" at the end
}

// bencher is one run.
type bencher struct {
	cfg    Config
	net    Network
	web    *web
	target netip.AddrPort
	paths  *paths
	report *Report
	usage  *usage
}

// Run measures the network once, from the figures without it to those of its memory. It leaves nothing behind. Its load is
// bounded by Size bytes and Limit of time for each step.
func Run(ctx context.Context, n Network, cfg Config) (*Report, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.Progress == nil {
		cfg.Progress = func(Step) {}
	}
	b := &bencher{cfg: cfg, net: n, report: newReport(n, cfg)}
	b.usage = &usage{processes: slices.Concat(n.Processes, []Process{{Name: roleBench, Role: roleBench}})}
	var err error
	if b.web, err = newWeb(); err != nil {
		return nil, err
	}
	defer b.web.close()
	b.target = b.web.listener.Addr().(*net.TCPAddr).AddrPort()
	b.paths = newPaths(n.Directory, b.target)
	defer b.paths.links.Close()

	begin := time.Now()
	steps := b.steps()
	for i, s := range steps {
		cfg.Progress(Step{i, len(steps), s.text})
		if err := s.do(ctx); err != nil {
			return nil, fmt.Errorf("bench: %s: %w", s.text, err)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	cfg.Progress(Step{len(steps), len(steps), ""})
	b.report.Seconds = time.Since(begin).Seconds()
	return b.report, nil
}

func newReport(n Network, cfg Config) *Report {
	r := &Report{
		Setup: Setup{
			Peel: cfg.Peel, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, CPU: cpuModel(), CPUs: runtime.NumCPU(),
			Kernel: layer.Kernel(), Nodes: Separate, Relays: n.Relays, Size: cfg.Size, Runs: cfg.Runs,
		},
		Values: make(map[string]Value), LeftOut: make(map[string]string),
	}
	if len(n.Processes) == 0 {
		r.Setup.Nodes = InProcess
	}
	return r
}

type step struct {
	text string
	do   func(context.Context) error
}

// steps are what a run does, in order. Links and circuits that one step opened are warm in the next.
func (b *bencher) steps() []step {
	return []step{
		{"the directory", b.start},
		{"no network", b.direct},
		{"building circuits", b.circuits},
		{"one hop", b.oneHop},
		{"three hops", b.threeHops},
		{"download", b.download},
		{"upload", func(ctx context.Context) error { return b.rates(ctx, "upload_MBps", true, b.socks("one")) }},
		{"10 downloads, one circuit", func(ctx context.Context) error { return b.parallel(ctx, "parallel10_MBps", 10, false) }},
		{"10 downloads, 10 circuits", func(ctx context.Context) error { return b.parallel(ctx, "parallel10_isolated_MBps", 10, true) }},
		{"50 downloads, one circuit", func(ctx context.Context) error { return b.parallel(ctx, "parallel50_MBps", 50, false) }},
		{"50 downloads, 50 circuits", func(ctx context.Context) error { return b.parallel(ctx, "parallel50_isolated_MBps", 50, true) }},
		{"first byte, warm circuit", func(ctx context.Context) error {
			return b.latency(ctx, "ttfb_warm_ms", b.cfg.Warm, func(int) dial { return b.socks("one") })
		}},
		{"first byte, answered early", func(ctx context.Context) error {
			return b.latency(ctx, "ttfb_early_ms", b.cfg.Warm, func(int) dial { return b.through(b.net.Early, "one") })
		}},
		{"first byte, new isolation", func(ctx context.Context) error {
			return b.latency(ctx, "ttfb_isolated_ms", b.cfg.Fresh, func(i int) dial { return b.socks(fmt.Sprint("new", i)) })
		}},
		{"first byte, fresh circuit", func(ctx context.Context) error {
			return b.latency(ctx, "ttfb_fresh_ms", b.cfg.Fresh, func(int) dial { return b.paths.fresh })
		}},
		{"memory", b.memory},
	}
}

// start learns the relays and notes what the nodes use at rest.
func (b *bencher) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	if err := b.paths.learn(ctx, b.net.Directory, b.net.Relays); err != nil {
		return err
	}
	return b.usage.rest()
}

// socks dials through the client. What has the same token may share a circuit, and nothing else.
func (b *bencher) socks(token string) dial { return b.through(b.net.SOCKS, token) }

// through is socks at one of the client's ports.
func (b *bencher) through(port, token string) dial {
	return func(ctx context.Context) (net.Conn, error) {
		d, err := proxy.SOCKS5("tcp", port, &proxy.Auth{User: token, Password: "bench"}, nil)
		if err != nil {
			return nil, err
		}
		return d.(proxy.ContextDialer).DialContext(ctx, "tcp", b.target.String())
	}
}

// direct measures without a network, which every other figure is set against.
func (b *bencher) direct(ctx context.Context) error {
	if _, err := first(ctx, b.web.direct); err != nil {
		return err
	}
	m, err := b.usage.during(func() (outcome, error) { return b.rate(ctx, "direct_MBps", false, b.web.direct) })
	if err != nil {
		return err
	}
	b.cpu("direct_cpu_ns_per_byte", m, roleBench, 1)
	if err := b.rates(ctx, "direct_upload_MBps", true, b.web.direct); err != nil {
		return err
	}
	return b.latency(ctx, "direct_ttfb_ms", b.cfg.Warm, func(int) dial { return b.web.direct })
}

// rates warms a way up and measures it.
func (b *bencher) rates(ctx context.Context, key string, upload bool, dials ...dial) error {
	for _, d := range dials {
		if _, err := first(ctx, d); err != nil {
			return err
		}
	}
	_, err := b.rate(ctx, key, upload, dials...)
	return err
}

// rate measures a way that is warm: the median of some runs. It returns what all of them carried.
func (b *bencher) rate(ctx context.Context, key string, upload bool, dials ...dial) (outcome, error) {
	var all outcome
	var rates []float64
	for range b.cfg.Runs {
		o, err := b.load(ctx, upload, dials...)
		if err != nil {
			return all, err
		}
		rates = append(rates, o.rate())
		all.bytes += o.bytes
		all.took += o.took
	}
	b.report.Values[key] = Value{Mid: median(rates)}
	return all, nil
}

// circuits counts how many circuits of three hops are built in a second. Links between the relays come up by it.
func (b *bencher) circuits(ctx context.Context) error {
	for range 2 * b.net.Relays {
		if err := b.paths.warm(ctx); err != nil {
			return err
		}
	}
	rate, failed, err := b.paths.buildMany(ctx, b.cfg.Building, b.cfg.Circuits)
	b.report.Values["circuits_per_s"] = Value{Mid: rate}
	b.report.Failed = failed
	return err
}

// oneHop measures a circuit that begins and ends at an exit, built here: clients build none, and exits take none but where they are told to.
func (b *bencher) oneHop(ctx context.Context) error {
	way, err := b.paths.choose()
	if err != nil {
		return err
	}
	c, err := b.paths.build(ctx, way[len(way)-1:])
	if err != nil {
		return err
	}
	defer c.Close()
	return b.rates(ctx, "one_hop_MBps", false, b.paths.over(c))
}

// threeHops measures a circuit built here, whose relays are known.
func (b *bencher) threeHops(ctx context.Context) error {
	way, err := b.paths.choose()
	if err != nil {
		return err
	}
	c, err := b.paths.build(ctx, way)
	if err != nil {
		return err
	}
	defer c.Close()
	d := b.paths.over(c)
	if _, err := first(ctx, d); err != nil {
		return err
	}
	m, err := b.usage.during(func() (outcome, error) { return b.rate(ctx, "library_MBps", false, d) })
	if err != nil {
		return err
	}
	for i, role := range []string{"guard", "middle", "exit"} {
		b.cpuOf(role+"_cpu_ns_per_byte", m, way[i].Nickname)
	}
	return b.latency(ctx, "ttfb_library_ms", b.cfg.Warm, func(int) dial { return d })
}

// download measures what the client carries in one stream, and what it costs each process.
func (b *bencher) download(ctx context.Context) error {
	d := b.socks("one")
	if _, err := first(ctx, d); err != nil {
		return err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m, err := b.usage.during(func() (outcome, error) { return b.rate(ctx, "download_MBps", false, d) })
	if err != nil {
		return err
	}
	runtime.ReadMemStats(&after)
	b.usage.download = m
	b.cpu("relay_cpu_ns_per_byte", m, RoleRelay, path.Hops)
	b.cpu("client_cpu_ns_per_byte", m, RoleClient, 1)
	if len(b.net.Processes) > 0 {
		b.leave("process_cpu_ns_per_byte", whyMany)
		b.leave("allocs_per_cell", whyMany)
		return nil
	}
	b.cpu("process_cpu_ns_per_byte", m, roleBench, 1)
	cells := float64(m.bytes) / cell.MaxData
	b.report.Values["allocs_per_cell"] = Value{Mid: float64(after.Mallocs-before.Mallocs) / cells}
	return nil
}

// parallel measures n downloads at once, on one circuit or on one each.
func (b *bencher) parallel(ctx context.Context, key string, n int, isolated bool) error {
	dials := make([]dial, n)
	for i := range dials {
		token := "one"
		if isolated {
			token = fmt.Sprint("each", i)
		}
		dials[i] = b.socks(token)
	}
	return b.rates(ctx, key, false, dials...)
}

// latency measures the first byte n times over, each time the way that the function names.
func (b *bencher) latency(ctx context.Context, key string, n int, way func(i int) dial) error {
	var ms []float64
	for i := range n {
		took, err := first(ctx, way(i))
		if err != nil {
			return err
		}
		ms = append(ms, took.Seconds()*1000)
	}
	b.report.Values[key] = Value{Percentile(ms, 0.5), Percentile(ms, 0.95)}
	return nil
}
