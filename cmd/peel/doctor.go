package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"peel/cell/contain"
	"peel/cmd/peel/internal/admin"
	"peel/cmd/peel/internal/conf"
	"peel/directory"
	"peel/directory/cache"
	"peel/relay"
)

// finding is a line of peel doctor.
type finding struct {
	Check  string `json:"check"`
	Level  string `json:"level"` // "ok", "warn" or "fail"
	Says   string `json:"says"`
	Remedy string `json:"remedy,omitempty"`
}

func ok(check, says string) finding { return finding{check, "ok", says, ""} }

func warn(check, says, remedy string) finding { return finding{check, "warn", says, remedy} }

func bad(check, says, remedy string) finding { return finding{check, "fail", says, remedy} }

func doctorCommand() *cobra.Command {
	var path string
	var asJSON bool
	c := &cobra.Command{
		Use: "doctor --config FILE", Short: "Look for what keeps a node from working well, and say the remedy", Args: cobra.NoArgs,
		Long: `Looks at all that peel check looks at, the configuration of a node, its keys and its folders, and at the machine: ports, addresses, the limit of open
files, resolvers, disk and, by the directory that the node has, the clock. It asks nobody but this machine; for a client that
has no relay list of use it also connects to the authorities, as the client would. The status is 1 if something must be
mended, else 0.`,
		RunE: func(c *cobra.Command, _ []string) error {
			return doctor(c.Context(), path, asJSON, c.OutOrStdout())
		},
	}
	configFlag(c, &path)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func doctor(ctx context.Context, path string, asJSON bool, out io.Writer) error {
	all := examine(ctx, path, time.Now())
	failed := false
	for _, f := range all {
		failed = failed || f.Level == "fail"
	}
	if asJSON {
		b, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s\n", b)
	} else {
		for _, f := range all {
			fmt.Fprintf(out, "%-4s  %s: %s\n", f.Level, f.Check, f.Says)
			if f.Remedy != "" {
				fmt.Fprintf(out, "      → %s\n", f.Remedy)
			}
		}
	}
	if failed {
		return &exitError{code: 1}
	}
	return nil
}

// examine looks at everything that can be looked at.
func examine(ctx context.Context, path string, now time.Time) (all []finding) {
	add := func(f ...finding) { all = append(all, f...) }
	x := conf.Examine(path, "")
	if len(x.Mistakes) > 0 {
		checkNamed(x)
	}
	for _, m := range x.Mistakes {
		add(bad("configuration", plainly(m), "mend it, then run: peel check "+path))
	}
	if len(all) > 0 {
		return all
	}
	kind := x.Kind
	add(ok("configuration", path+" is in order ("+kind+")"))
	var network, keys, state string
	var resolvers []string
	var ports []listened
	var exits bool
	switch f := x.File.(type) {
	case *conf.Relay:
		network, keys, state, resolvers, exits = f.Network, f.Keys, f.State, f.Resolvers, len(f.Exit) > 0
		ports = append(portsOf("listen", f.Listen...), portsOf("admin", f.Admin)...)
		if f.Notice != "" {
			ports = append(ports, portsOf("exit_notice", f.NoticeListen()...)...)
		}
		add(checkAddresses(f)...)
	case *conf.Client:
		network, state = f.Network, f.State
		for _, l := range f.Doors() {
			if l.Unix() != "" {
				continue
			}
			key := "listen"
			if l.Address == f.SOCKS {
				key = "socks"
			}
			ports = append(ports, listened{key, l.Address})
		}
		add(checkDoors(f)...)
		ports = append(append(ports, portsOf("dns", f.DNS)...), portsOf("admin", f.Admin)...)
	case *conf.Authority:
		network, keys, state = f.Network, f.Keys, f.State
		ports = append(portsOf("listen", f.Listen...), portsOf("admin", f.Admin)...)
	default:
		return append(all, bad("configuration", "this is no node's file: it is for "+kind, "name the node's own file"))
	}
	faults := namedFaults(x)
	if !slices.ContainsFunc(faults, func(f fault) bool { return f.key == "keys" }) {
		add(checkKeys(kind, keys, now)...)
	}
	node := lifeOf(ctx, state)
	if state != "" && !slices.ContainsFunc(faults, func(f fault) bool { return f.key == "state" }) {
		says := " is, or will be made, safe from others"
		if node == alive {
			says = " is safe from others, and the node runs with it"
		}
		add(ok("state", state+says))
	}
	for _, f := range faults {
		add(faultOf(f))
	}
	if len(faults) == 0 {
		add(checkWritable("state", state, "the node does not start where it cannot keep what it knows", mayWrite)...)
		if kind == "relay" {
			add(checkWritable("keys", keys, "each week a new onion key is to be kept there", mayWrite)...)
		}
	}
	add(checkPorts(ports, node)...)
	add(checkClock(network, state, now))
	if kind == "client" {
		add(checkAuthorities(ctx, network, state, now)...)
	}
	add(checkOpenFiles(kind))
	add(checkDisk(state))
	if exits {
		add(checkResolvers(resolvers))
	}
	return all
}

// What is known of whether the node of a state folder runs.
type life int

const (
	unknown life = iota // it is another user's, or has no state folder
	ended
	alive
)

// lifeOf says whether a node answers in a state folder, or holds it, as one does that has no socket.
func lifeOf(ctx context.Context, state string) life {
	if state == "" {
		return unknown
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	a, err := admin.NewAsker(filepath.Join(state, admin.SocketFile))
	if err == nil {
		_, err = a.Get(ctx, "/healthz")
	}
	switch {
	case err == nil, cache.Held(state):
		return alive
	case errors.Is(err, fs.ErrPermission):
		return unknown
	}
	return ended
}

// faultOf is what is wrong with what a key names, with its remedy where the error has none.
func faultOf(f fault) finding {
	says := plainly(f.err)
	var exposed *relay.ExposedError
	switch {
	case f.key == "keys" && errors.Is(f.err, fs.ErrNotExist):
		return bad(f.key, says, "a node without its keys is another node: look whether keys in the configuration names the right folder")
	case f.key == "keys" && errors.As(f.err, &exposed):
		return bad(f.key, says, "only the node's user may read them: chmod 700 the folder, chmod 600 the files, and chown both to that user")
	}
	return bad(f.key, says, "")
}

// checkKeys looks at how long keys, which can be read, are good for.
func checkKeys(kind, dir string, now time.Time) []finding {
	var ends time.Time
	within := relay.RenewWithin
	switch kind {
	case "relay":
		k, err := relay.LoadSigner(dir, now)
		if err != nil {
			return []finding{bad("keys", plainly(err), "")}
		}
		if _, err := os.Stat(filepath.Join(dir, identityFile)); k != nil && err != nil {
			ends = k.Certificate.NotAfter
		}
	case "authority":
		c, err := authorityKeys(dir, now)
		if err != nil {
			return []finding{bad("keys", plainly(err), "")}
		}
		if !c.Certificate.Identity.IsZero() { // else the identity makes one when it starts
			ends, within = c.Certificate.NotAfter, 14*24*time.Hour
		}
	default:
		return nil
	}
	switch left := ends.Sub(now); {
	case ends.IsZero(): // there is none
	case left <= 0:
		return []finding{bad("keys", "the certificate of the signing key ended "+moment(ends), "renew it: peel keys rotate --help")}
	case left <= within:
		return []finding{warn("keys", fmt.Sprintf("the certificate of the signing key ends in %d days", int(left.Hours()/24)), "renew it: peel keys rotate --help")}
	}
	return []finding{ok("keys", "can be read, by their owner only")}
}

// listened is an address that a key of the configuration has the node listen on.
type listened struct{ key, address string }

// portsOf are the addresses of a key; "": none.
func portsOf(key string, addresses ...string) (all []listened) {
	for _, a := range addresses {
		if a != "" {
			all = append(all, listened{key, a})
		}
	}
	return all
}

// checkPorts says whether the node could listen where it is to.
func checkPorts(ports []listened, node life) (all []finding) {
	for _, p := range ports {
		l, err := net.Listen(networkOf("tcp", p.address), p.address)
		if err == nil {
			l.Close()
		}
		if err == nil && p.key == "dns" {
			var u net.PacketConn
			if u, err = net.ListenPacket(networkOf("udp", p.address), p.address); err == nil {
				u.Close()
			}
		}
		what := p.key + " " + p.address
		switch {
		case err == nil:
			all = append(all, ok("port", what+" is free"))
		case errors.Is(err, syscall.EADDRINUSE) && node == alive:
			all = append(all, ok("port", what+" is in use, and the node runs"))
		case errors.Is(err, syscall.EADDRINUSE) && node == unknown:
			all = append(all, warn("port", what+" is in use, and whether by the node cannot be told", "run this as the user that the node runs as"))
		case errors.Is(err, syscall.EADDRINUSE):
			all = append(all, bad("port", what+" is in use, although the node does not run", "end what listens there (ss -ltnp shows it), or choose another port"))
		case errors.Is(err, syscall.EACCES):
			all = append(all, bad("port", what+" may not be listened on", "choose a port above 1023, and have the firewall lead another to it if need be"))
		default:
			all = append(all, bad("port", p.key+": "+err.Error(), "choose an address of this machine, or 0.0.0.0 for all"))
		}
	}
	return all
}

// checkAddresses says whether others can reach what the relay advertises.
func checkAddresses(f *conf.Relay) (all []finding) {
	told, err := f.Told()
	if err != nil {
		return []finding{bad("address", err.Error(), "mend advertise in the configuration")}
	}
	listens := func(other string) bool { // at least at one address that is not of the other family
		return slices.ContainsFunc(f.Listen, func(s string) bool { return networkOf("tcp", s) != other })
	}
	for _, a := range told {
		switch {
		case a.Addr().IsLoopback() || a.Addr().IsPrivate() || a.Addr().IsLinkLocalUnicast():
			all = append(all, warn("address", a.String()+" can only be reached in this house or machine", "for a public network, say the public address in advertise"))
		case a.Addr().Is6() && !listens("tcp4"):
			all = append(all, warn("address", a.String()+" is one of IPv6, and listen names only addresses of IPv4", "add [::]:PORT to listen, unless something else leads links from there to the relay"))
		case a.Addr().Is4() && !listens("tcp6"):
			all = append(all, warn("address", a.String()+" is one of IPv4, and listen names only addresses of IPv6", "add 0.0.0.0:PORT to listen, unless something else leads links from there to the relay"))
		default:
			all = append(all, ok("address", a.String()+" is told to others once some reach it: peel status says so"))
		}
	}
	return all
}

// checkDoors says which of a client's ports others can reach: whoever does, uses it.
func checkDoors(f *conf.Client) (all []finding) {
	open := func(address string) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return // none is given
		}
		if a, err := netip.ParseAddr(host); host != "" && (err != nil || a.Unmap().IsLoopback()) {
			return
		}
		all = append(all, warn("address", address+" is open to other machines, and whoever reaches it uses this client",
			"choose an address of this machine alone, such as 127.0.0.1, or have the firewall keep others out"))
	}
	for _, l := range f.Doors() {
		if l.Unix() == "" {
			open(l.Address)
		}
	}
	open(f.DNS)
	return all
}

// usualFiles is how many files a busy relay has open: a socket for each link and stream.
const usualFiles = 16384

func checkOpenFiles(kind string) finding {
	n, known := mostFiles()
	least := uint64(usualFiles)
	if kind == "client" {
		least = 2048
	}
	switch {
	case !known:
		return ok("open files", "this system does not say its limit")
	case n < least/8:
		return bad("open files", fmt.Sprintf("at most %d", n), fmt.Sprintf("set LimitNOFILE=%d in the unit, or run: ulimit -n %d", 4*least, 4*least))
	case n < least:
		return warn("open files", fmt.Sprintf("at most %d, a busy node may need %d", n, least), fmt.Sprintf("set LimitNOFILE=%d in the unit, or run: ulimit -n %d", 4*least, 4*least))
	}
	return ok("open files", fmt.Sprintf("at most %d", n))
}

// there is a folder, or, if it is to be made, the one above it that is there.
func there(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || filepath.Dir(dir) == dir {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// checkWritable says whether the node cannot write in the folder of a key; "": there is none.
func checkWritable(key, dir, why string, may func(string) error) []finding {
	if dir == "" {
		return nil
	}
	if err := may(there(dir)); err != nil {
		return []finding{bad(key, fmt.Sprintf("%s cannot be written in: %v", there(dir), err), why+": let the node's user write there, or choose another folder")}
	}
	return nil
}

func checkDisk(state string) finding {
	if state == "" {
		return warn("disk", "no state folder: nothing is kept between runs", "give state a folder")
	}
	dir := there(state)
	free, known := freeBytes(dir)
	switch {
	case !known:
		return ok("disk", "this system does not say how much is free")
	case free < 64<<20:
		return bad("disk", fmt.Sprintf("%d MiB are free at %s", free>>20, dir), "make room: the directory and the keys cannot be written on a full disk")
	case free < 1<<30:
		return warn("disk", fmt.Sprintf("%d MiB are free at %s", free>>20, dir), "make room soon")
	}
	return ok("disk", fmt.Sprintf("%d GiB are free at %s", free>>30, dir))
}

// checkResolvers looks at what an exit asks for names.
func checkResolvers(configured []string) finding {
	if len(configured) > 0 {
		return ok("resolvers", strings.Join(configured, ", ")+", as the configuration says")
	}
	text, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return warn("resolvers", err.Error(), "name DNS servers under resolvers in the configuration")
	}
	var servers []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			servers = append(servers, f[1])
		}
	}
	if len(servers) == 0 {
		return bad("resolvers", "/etc/resolv.conf names none, so that no name is found", "name DNS servers under resolvers in the configuration, best one on this machine")
	}
	return ok("resolvers", strings.Join(servers, ", ")+", of /etc/resolv.conf")
}

// reachRemedy is what to do where no authority can be reached.
const reachRemedy = "see that this machine's network is up, that no firewall keeps connections to the authorities from leaving, and that the network file is still the network's own"

// checkAuthorities says, of a client that has to ask the authorities since it has no list that holds, whether any takes a connection.
func checkAuthorities(ctx context.Context, network, state string, now time.Time) []finding {
	n, err := conf.LoadNetwork(network)
	if err != nil {
		return nil // it was told
	}
	if text, err := os.ReadFile(filepath.Join(state, "consensus")); state != "" && err == nil {
		c, err := directory.ParseConsensus(text)
		if err == nil {
			_, err = c.Usable(n, now)
		}
		if err == nil {
			return nil // relays are asked
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	whys := make([]error, len(n.Authorities)) // nil: it takes connections
	var wg contain.Group
	for i, a := range n.Authorities {
		wg.Go(func(p *contain.Panic) { whys[i] = p }, func() {
			for _, addr := range a.Addrs {
				var c net.Conn
				if c, whys[i] = new(net.Dialer).DialContext(ctx, "tcp", addr.String()); whys[i] == nil {
					c.Close()
					return
				}
			}
		})
	}
	wg.Wait()
	whys = slices.DeleteFunc(whys, func(err error) bool { return err == nil })
	all := len(n.Authorities)
	if len(whys) == all {
		return []finding{bad("authorities", fmt.Sprintf("none of %d takes a connection, and a client without a relay list needs one; the first: %v", all, whys[0]), reachRemedy)}
	}
	return []finding{ok("authorities", fmt.Sprintf("%d of %d take connections", all-len(whys), all))}
}

// checkClock compares the clock with the directory that the node keeps: enough authorities signed when it holds.
func checkClock(network, state string, now time.Time) finding {
	n, err := conf.LoadNetwork(network)
	if err != nil {
		return bad("clock", err.Error(), "mend the network file")
	}
	text, err := os.ReadFile(filepath.Join(state, "consensus"))
	if state == "" || err != nil {
		return ok("clock", moment(now)+"; there is no directory here yet to compare it with")
	}
	c, err := directory.ParseConsensus(text)
	if err == nil {
		_, err = c.Usable(n, now)
	}
	var t *directory.TimeError
	switch {
	case errors.As(err, &t) && errors.Is(err, directory.ErrFuture):
		return bad("clock", err.Error(), "set the clock, and let NTP keep it")
	case errors.As(err, &t):
		return warn("clock", err.Error(), "set the clock if it is ahead; else the node has not run for a while, and gets a new directory when it does")
	case err != nil:
		return warn("clock", "the directory kept here is of no use: "+err.Error(), "end the node and remove the file consensus in its state folder")
	}
	return ok("clock", moment(now)+", which the directory kept here agrees with")
}
