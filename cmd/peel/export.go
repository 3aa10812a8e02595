package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"peel/cmd/peel/internal/conf"
	"peel/directory"
	"peel/testnet"
)

// export is a test network to be run by an engine: a folder a node, as peel init makes them, and what the engine needs.
type export struct {
	size       testnet.Size
	dir        string
	compose    bool
	kubernetes bool
	systemd    bool
	hosts      []string
	address    string
	port       uint16
	period     time.Duration
	exits      []string
	image      string
	socks      string

	layout *testnet.Layout
	nodes  []exported
}

// exported is a node of an exported network.
type exported struct {
	name, kind string
	addr       netip.AddrPort // of a client: none that others need
	text       string         // of its configuration
	save       func(dir string) error
}

// config is the name of the node's configuration, which is in the folder that it is started with.
func (n *exported) config() string { return n.kind + ".toml" }

const (
	composeFirst    = "10.213.0.10" // in a subnet of /24 and more, behind what the engine takes for itself
	kubernetesFirst = "10.96.0.100" // in the usual range of services, in its part that is not given to others unasked
	usualImage      = "localhost/peel:latest"
)

func exportCommand() *cobra.Command {
	e := &export{size: testnet.Size{Authorities: 5, Relays: 8, Exits: 3}}
	c := &cobra.Command{
		Use: "export --compose|--kubernetes|--systemd DIR", Short: "Write a test network for Docker Compose, Kubernetes or systemd", Args: cobra.ExactArgs(1),
		Long: `Writes the keys, the network file, the configurations and what else is needed to run a test network on other machines,
with a README that says how. All keys are in DIR, those of the authorities' identities too: for tests only.

--compose     one machine with Docker or Podman; each node has an address of a
              network of its own, from --address on
--kubernetes  a cluster; each node has the fixed address of a service, from
              --address on, which must be free in the cluster's range of services
--systemd     machines with systemd, at the addresses of --host; the nodes are dealt
              out to them in turn`,
		Example: "  peel testnet export --compose net\n  peel testnet export --kubernetes net --address 10.43.0.100\n" +
			"  peel testnet export --systemd net --host 192.0.2.1,192.0.2.2,192.0.2.3 --relays 6",
		RunE: func(c *cobra.Command, args []string) error {
			if e.dir = args[0]; e.kubernetes && c.Flags().Changed("socks") {
				return &usageError{errors.New("--socks: not with --kubernetes, where kubectl port-forward says which port it is")}
			}
			return e.run(c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.BoolVar(&e.compose, "compose", false, "for Docker Compose")
	f.BoolVar(&e.kubernetes, "kubernetes", false, "for Kubernetes")
	f.BoolVar(&e.systemd, "systemd", false, "for systemd on several machines")
	c.MarkFlagsOneRequired("compose", "kubernetes", "systemd")
	c.MarkFlagsMutuallyExclusive("compose", "kubernetes", "systemd")
	f.IntVar(&e.size.Authorities, "authorities", e.size.Authorities, "directory authorities")
	f.IntVar(&e.size.Relays, "relays", e.size.Relays, "relays, exits included")
	f.IntVar(&e.size.Exits, "exits", e.size.Exits, "relays that are exits")
	f.StringSliceVar(&e.hosts, "host", nil, "`address` of a machine, for --systemd; the client is on the first")
	f.StringVar(&e.address, "address", "", "first IPv4 `address` of the nodes (default: "+composeFirst+" with --compose, "+kubernetesFirst+" with --kubernetes)")
	f.Uint16Var(&e.port, "port", 9001, "port of the nodes, and the first of several on one address")
	f.DurationVar(&e.period, "period", 20*time.Second, "`time` from one directory to the next, whole seconds")
	f.StringArrayVar(&e.exits, "exit", []string{"accept *:*"}, "a `rule` of the exits' policy; may be given more than once")
	f.StringVar(&e.socks, "socks", "127.0.0.1:9250", "`address` of the client's port for SOCKS and HTTP CONNECT, not for --kubernetes")
	f.StringVar(&e.image, "image", usualImage, "the `name` of the image")
	return c
}

func (e *export) run(out io.Writer) (end error) {
	if err := checkPeriod(e.period); err != nil {
		return err
	}
	place, err := e.place()
	if err != nil {
		return &usageError{err}
	}
	if err := e.size.Check(); err != nil {
		return &usageError{err}
	}
	if e.layout, err = testnet.Plan("exported", e.size, place, time.Time{}, e.period, 0, time.Now()); err != nil {
		return &usageError{err}
	}
	if err := e.layout.Network.Check(); err != nil {
		return &usageError{err}
	}
	if err := e.plan(); err != nil {
		return &usageError{err}
	}
	undo, err := newFolder(e.dir, e.names()...)
	if err != nil {
		return err
	}
	defer func() { undo(end) }()
	switch {
	case e.compose:
		err = e.writeCompose()
	case e.kubernetes:
		err = e.writeKubernetes()
	default:
		err = e.writeSystemd()
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "wrote %s: see %s\n", e.dir, filepath.Join(e.dir, "README.md"))
	return err
}

// names are what is written into the folder.
func (e *export) names() []string {
	names := []string{"README.md", ".env", "compose.yaml", "kubernetes.yaml"}
	for _, n := range e.nodes {
		if e.systemd {
			names = append(names, hostFolder(n.addr.Addr()))
		} else {
			names = append(names, n.name)
		}
	}
	return names
}

// place gives the nodes their addresses: each one of its own, or those of the machines in turn.
func (e *export) place() (testnet.Place, error) {
	switch {
	case e.systemd && e.address != "":
		return nil, errors.New("--address is not for --systemd: name the machines with --host")
	case e.systemd:
		return e.placeOnMachines()
	case len(e.hosts) > 0:
		return nil, errors.New("--host is for --systemd only")
	}
	first := e.address
	if first == "" {
		first = composeFirst
		if e.kubernetes {
			first = kubernetesFirst
		}
	}
	a, err := netip.ParseAddr(first)
	if err != nil || !a.Is4() || a.IsUnspecified() || a.IsMulticast() {
		return nil, fmt.Errorf("--address %q: must be an IPv4 address, such as %s", first, composeFirst)
	}
	return func(i int) (netip.AddrPort, error) {
		at := a
		for range i {
			at = at.Next()
		}
		if e.kubernetes {
			return e.at(at, i) // so that they can also be tried on one machine
		}
		return e.at(at, 0)
	}, nil
}

// placeOnMachines gives them those of the machines in turn.
func (e *export) placeOnMachines() (testnet.Place, error) {
	var hosts []netip.Addr
	for _, s := range e.hosts {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" || a.IsUnspecified() {
			return nil, fmt.Errorf("--host %q: must be an address at which the other machines reach this one, such as 192.0.2.7", s)
		}
		if slices.Contains(hosts, a) {
			return nil, fmt.Errorf("--host %v is given twice", a)
		}
		hosts = append(hosts, a)
	}
	if len(hosts) == 0 {
		return nil, errors.New("--host is needed with --systemd: the addresses of the machines, as in --host 192.0.2.1,192.0.2.2")
	}
	return func(i int) (netip.AddrPort, error) { return e.at(hosts[i%len(hosts)], i/len(hosts)) }, nil
}

// at is an address with the port that is so far behind the first.
func (e *export) at(a netip.Addr, further int) (netip.AddrPort, error) {
	port := int(e.port) + further
	if port > 65535 || e.port == 0 {
		return netip.AddrPort{}, fmt.Errorf("--port %d: there are too few ports from there on", e.port)
	}
	return netip.AddrPortFrom(a, uint16(port)), nil
}

// plan makes the nodes' configurations. Each node's folder has all that it needs.
func (e *export) plan() error {
	private := false
	for _, a := range e.layout.Authorities {
		private = private || directory.Special(a.Addr.Addr())
	}
	for _, r := range e.layout.Relays {
		private = private || directory.Special(r.Addr.Addr())
	}
	listen := func(a netip.AddrPort) []string {
		if e.systemd {
			return []string{a.String()}
		}
		return []string{netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port()).String()}
	}
	for i := range e.layout.Authorities {
		a := &e.layout.Authorities[i]
		f := conf.Authority{Network: "network.toml", Keys: "keys", State: "state", Listen: listen(a.Addr), Private: private, Log: "info", Params: e.layout.Params()}
		if err := conf.Check(&f); err != nil {
			return err
		}
		e.nodes = append(e.nodes, exported{a.Nickname, "authority", a.Addr, f.Text(), a.Save})
	}
	for i := range e.layout.Relays {
		r := &e.layout.Relays[i]
		f := conf.Relay{Network: "network.toml", Keys: "keys", State: "state", Nickname: r.Nickname, Listen: listen(r.Addr), Advertise: []string{r.Addr.String()}, Log: "info"}
		if r.Exit {
			f.Exit = e.exits
		}
		if err := conf.Check(&f); err != nil {
			return err
		}
		e.nodes = append(e.nodes, exported{r.Nickname, "relay", r.Addr, f.Text(), r.Keys.Save})
	}
	f := conf.Client{Network: "network.toml", State: "state", SOCKS: e.socks, Log: "info"}
	if err := conf.Check(&f); err != nil {
		return err
	}
	switch {
	case e.compose:
		f.SOCKS = "0.0.0.0:9250" // of a container, whose port is published to this machine only
	case e.kubernetes:
		f.SOCKS = "127.0.0.1:9250" // of a pod: kubectl port-forward gets there, other pods do not
	}
	at := netip.AddrPortFrom(e.nodes[len(e.nodes)-1].addr.Addr().Next(), 9250)
	if e.systemd {
		at = e.nodes[0].addr
	}
	e.nodes = append(e.nodes, exported{name: "client", kind: "client", addr: at, text: f.Text()})
	return nil
}

// writeNode writes a node's folder.
func (e *export) writeNode(dir string, n *exported) error {
	text, err := e.layout.Network.Encode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		return err
	}
	if n.save != nil {
		if err := n.save(filepath.Join(dir, "keys")); err != nil {
			return err
		}
	}
	if err := put(filepath.Join(dir, "network.toml"), string(text)); err != nil {
		return err
	}
	return put(filepath.Join(dir, n.config()), n.text)
}

// subnet is the smallest network of /24 and more that has all addresses.
func (e *export) subnet() netip.Prefix {
	bits := 24
	for ; bits > 0; bits-- {
		p, _ := e.nodes[0].addr.Addr().Prefix(bits)
		if !slices.ContainsFunc(e.nodes, func(n exported) bool { return !p.Contains(n.addr.Addr()) }) {
			return p
		}
	}
	return netip.Prefix{}
}

func (e *export) writeCompose() error {
	for i := range e.nodes {
		if err := e.writeNode(filepath.Join(e.dir, e.nodes[i].name), &e.nodes[i]); err != nil {
			return err
		}
	}
	// The nodes run as who owns their keys.
	uid, gid := os.Getuid(), os.Getgid()
	if uid < 0 { // Windows, where files in a container are everybody's
		uid, gid = 65532, 65532
	}
	// The name is not in the file itself, where docker-compose 1 knows none.
	if err := put(filepath.Join(e.dir, ".env"), fmt.Sprintf("COMPOSE_PROJECT_NAME=peel-testnet\nPEEL_UID=%d\nPEEL_GID=%d\n", uid, gid)); err != nil {
		return err
	}
	var services table
	for _, n := range e.nodes {
		config := "/var/lib/peel/" + n.config()
		s := table{
			{"image", e.image}, {"command", texts(n.kind, "--config", config)}, {"user", "${PEEL_UID}:${PEEL_GID}"},
			{"read_only", true}, {"cap_drop", texts("ALL")}, {"security_opt", texts("no-new-privileges:true")},
			{"volumes", texts("./" + n.name + ":/var/lib/peel")}, {"restart", "on-failure"}, {"stop_grace_period", "45s"},
			{"healthcheck", table{{"test", texts("CMD", "/peel", "status", "--config", config)}, {"interval", "10s"}, {"start_period", "10s"}}},
		}
		if n.kind == "client" {
			s = append(s, entry{"ports", texts(e.socks + ":9250")})
		}
		s = append(s, entry{"networks", table{{"peel", table{{"ipv4_address", n.addr.Addr().String()}}}}})
		services = append(services, entry{n.name, s})
	}
	text := yamlText(table{
		{"services", services},
		{"networks", table{{"peel", table{{"ipam", table{{"config", []any{table{{"subnet", e.subnet().String()}}}}}}}}}},
	})
	if err := put(filepath.Join(e.dir, "compose.yaml"), text); err != nil {
		return err
	}
	return put(filepath.Join(e.dir, "README.md"), fmt.Sprintf(`# A Peel test network on Docker Compose

Build the image in Peel's sources, then start the network here:

    docker build -f packaging/Containerfile -t %[1]s .
    docker compose up -d

Podman does it as well: podman build, podman compose. Without root it maps users: set PODMAN_USERNS=keep-id. Once the client
is ready, which docker compose logs -f client shows, use it:

    curl --socks5-hostname %[3]s https://example.com/

The nodes run as the user and group in .env, whose files their folders must be. Their addresses are in %[2]s, and in the network
file: if your machine uses that range, export again with another --address. docker compose down ends the network. All keys
are here: it is a network for tests.
`, e.image, e.subnet(), e.socks))
}
