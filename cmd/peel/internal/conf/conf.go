// Package conf is the configuration files of nodes: TOML, read strictly, so that a slip of the pen is an error with its file
// and line and never a node that is less safe than its operator meant.
package conf

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"peel/cell"
	"peel/cmd/peel/internal/admin"
	"peel/directory"
	"peel/directory/strict"
	"peel/relay/exit/dns"
)

// Relay is relay.toml.
type Relay struct {
	Network   string   `toml:"network"`
	Keys      string   `toml:"keys"`
	State     string   `toml:"state"`
	Nickname  string   `toml:"nickname"`
	Contact   string   `toml:"contact"`
	Listen    []string `toml:"listen"`
	Advertise []string `toml:"advertise"`
	Assume    bool     `toml:"assume_reachable"`
	Bandwidth string   `toml:"bandwidth"`
	Burst     string   `toml:"burst"`
	Quota     string   `toml:"quota"`
	Period    string   `toml:"quota_period"`
	Memory    string   `toml:"memory_budget"`

	MaxLinks       int  `toml:"max_links"`
	MaxCircuits    int  `toml:"max_circuits"`
	MaxStreams     int  `toml:"max_streams"`
	AddrLinks      int  `toml:"address_links"`
	AddrCircuits   int  `toml:"address_circuits"`
	AddrLinkRate   int  `toml:"address_link_rate"`
	AddrCreateRate int  `toml:"address_create_rate"`
	AddrExtendRate int  `toml:"address_extend_rate"`
	AddrStreamRate int  `toml:"address_stream_rate"`
	NoAddr         bool `toml:"no_address_limits"`

	Exit      []string `toml:"exit_policy"`
	Resolvers []string `toml:"resolvers"`
	Notice    string   `toml:"exit_notice"`
	NoticeAt  []string `toml:"exit_notice_listen"`
	Family    []string `toml:"family"`
	Admin     string   `toml:"admin"`
	Open      bool     `toml:"no_sandbox"`
	Log       string   `toml:"log"`
}

// Authority is authority.toml.
type Authority struct {
	Network string           `toml:"network"`
	Keys    string           `toml:"keys"`
	State   string           `toml:"state"`
	Listen  []string         `toml:"listen"`
	Allow   []string         `toml:"allow"`
	Lists   []string         `toml:"lists"`
	Private bool             `toml:"private_addresses"`
	Measure bool             `toml:"measure"`
	From    string           `toml:"measure_from"`
	Memory  string           `toml:"memory_budget"`
	Admin   string           `toml:"admin"`
	Open    bool             `toml:"no_sandbox"`
	Log     string           `toml:"log"`
	Params  directory.Params `toml:"params"` // a table: it comes last
}

// Client is client.toml.
type Client struct {
	Network string `toml:"network"`
	State   string `toml:"state"`
	Memory  string `toml:"memory_budget"`
	SOCKS   string `toml:"socks"`
	DNS     string `toml:"dns"`

	Own          []string `toml:"own_relays"`
	Exclude      []string `toml:"exclude"`
	ExcludeExits []string `toml:"exclude_exits"`
	Lenient      bool     `toml:"exclude_lenient"`
	Countries    []string `toml:"countries"`
	NoRacing     bool     `toml:"no_racing"`

	Admin string `toml:"admin"`
	Open  bool   `toml:"no_sandbox"`
	Log   string `toml:"log"`

	Listen []Listen `toml:"listen"` // tables: they come last
}

// Error is a mistake in a configuration file.
type Error struct {
	File string
	Err  error
}

// BeginsWithName keeps the file's name from being taken for that of a package (story.Words).
func (e *Error) BeginsWithName() bool { return e.File != "" }

func (e *Error) Error() string {
	var at *strict.Error
	if e.File == "" {
		return Plain(e.Err)
	}
	if errors.As(e.Err, &at) && at.Line > 0 {
		return fmt.Sprintf("%s:%d: %s", e.File, at.Line, Plain(errors.New(at.Text)))
	}
	if at != nil {
		return fmt.Sprintf("%s: %s", e.File, Plain(errors.New(at.Text))) // without the room that found it
	}
	if call, ok := e.Err.(*fs.PathError); ok && call.Path == e.File {
		return fmt.Sprintf("%s: %v", e.File, call.Err) // which names the file once more
	}
	return fmt.Sprintf("%s: %s", e.File, Plain(e.Err))
}

func (e *Error) Unwrap() error { return e.Err }

// More are the mistakes that were found in the file besides this one.
func (e *Error) More() (all []*Error) {
	var at *strict.Error
	if errors.As(e.Err, &at) {
		for _, m := range at.More {
			all = append(all, &Error{e.File, m})
		}
	}
	return all
}

// file is what every kind of file can do.
type file interface {
	// check tells of each key that has a value which cannot be, and why.
	check(*mistakes)
}

// Load reads a file into one of the structs of this package. Paths in it are relative to the file's folder and come back
// absolute or relative to the working directory as path is. A file that leaves state out means the folder that a service
// manager gave. Every error is an *Error, of all mistakes; then into has what could be read for all that.
func Load(path string, into file) error {
	text, err := read(path)
	if err != nil {
		return &Error{path, err}
	}
	return load(path, text, into)
}

func load(path string, text []byte, into file) error {
	reflect.ValueOf(into).Elem().FieldByName("State").SetString(givenFolder("STATE_DIRECTORY"))
	err := strict.Decode(text, into)
	if other := meantFor(text, err); other != nil {
		return &Error{path, other}
	}
	var all mistakes
	into.check(&all)
	anchor(filepath.Dir(path), into)
	if c, ok := into.(*Client); ok && err == nil && len(all) == 0 {
		_, err := c.Rules()
		all.at("countries", err)
	}
	if err := strict.With(err, all.in(text, err)); err != nil {
		return &Error{path, err}
	}
	return nil
}

// anchor makes the paths in a file relative to its folder.
func anchor(dir string, into file) {
	at := func(name string) string {
		if name == "" || filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(dir, name)
	}
	v := reflect.ValueOf(into).Elem()
	for _, name := range []string{"Network", "Keys", "State"} {
		if f := v.FieldByName(name); f.IsValid() {
			f.SetString(at(f.String()))
		}
	}
	switch c := into.(type) {
	case *Relay:
		if c.Notice != UsualNotice {
			c.Notice = at(c.Notice)
		}
	case *Client:
		c.anchor(dir)
	case *Authority:
		for i, name := range c.Lists {
			c.Lists[i] = at(name)
		}
	}
}

var errNoFile = errors.New("no such file: peel init writes one")

// read reads at most so much of a file as a configuration may have.
func read(path string) ([]byte, error) {
	if path == "" {
		return nil, errors.New("the name of the file is empty: give one")
	}
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoFile
	}
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return nil, errors.New("this is a folder: name a file in it")
	}
	if !st.Mode().IsRegular() || st.Size() > strict.MostBytes {
		return nil, fmt.Errorf("not a file of at most %d bytes", strict.MostBytes)
	}
	text, err := os.ReadFile(path)
	if err == nil {
		err = strict.TooDeep(text)
	}
	return text, err
}

// About is what is wrong with what a key of a file names, as an *Error.
func About(path, key string, err error) error {
	text, _ := read(path) // it was read before: without it the line is not told
	return &Error{path, strict.At(text, key, err)}
}

// LoadNetwork reads the network file.
func LoadNetwork(path string) (*directory.Network, error) {
	text, err := read(path)
	if errors.Is(err, errNoFile) {
		err = errors.New("no such file: who runs the network hands it out, or peel init network writes one")
	}
	if err != nil {
		return nil, &Error{path, err}
	}
	n, err := directory.ParseNetwork(text)
	if err != nil {
		return nil, &Error{path, cmp.Or(meantFor(text, err), err)}
	}
	return n, nil
}

// NetworkOf reads the network file that a node's configuration names. What is wrong with it as a whole, such as that it is not
// there, is told with the line that names it.
func NetworkOf(config, path string) (*directory.Network, error) {
	n, err := LoadNetwork(path)
	if ofWhole(err) {
		err = About(config, "network", err)
	}
	return n, err
}

// ofWhole says whether an error is of a file as a whole, and not of a line in it.
func ofWhole(err error) bool {
	var e *Error
	return errors.As(err, &e) && strict.Line(e.Err) == 0
}

func (c *Relay) check(m *mistakes) {
	m.at("network", required(c.Network))
	m.at("keys", required(c.Keys))
	m.at("nickname", directory.CheckNickname(c.Nickname))
	m.at("contact", directory.CheckContact(c.Contact))
	m.listens("listen", c.Listen)
	_, err := c.Addrs()
	m.at("advertise", err)
	if _, untold := c.Told(); err == nil {
		m.at("advertise", untold, "listen")
	}
	_, err = c.Rate()
	m.at("bandwidth", err)
	c.checkTraffic(m)
	_, err = Size(c.Memory, LeastRelayMemory)
	m.at("memory_budget", err)
	c.checkBounds(m)
	each(m, "exit_policy", c.Exit, func(s string) error { _, err := directory.ParsePolicy([]string{s}); return err }, func() error { _, err := c.Policy(); return err })
	each(m, "resolvers", c.Resolvers, func(s string) error { _, err := dns.ParseServer(s); return err }, func() error { _, err := c.Servers(); return err })
	if c.Notice != "" && len(c.Exit) == 0 {
		m.at("exit_notice", errors.New("it tells people what an exit is, but exit_policy lets nothing out"), "exit_policy")
	}
	if c.Notice == "" && len(c.NoticeAt) > 0 {
		m.at("exit_notice_listen", fmt.Errorf("there is no exit_notice to show: set that to %q, or to a file", UsualNotice), "exit_notice")
	} else if len(c.NoticeAt) > 0 {
		m.listens("exit_notice_listen", c.NoticeAt)
	}
	m.identities("family", c.Family)
	m.at("admin", adminAt(c.Admin, c.State), "state")
	m.at("log", level(c.Log))
}

func (c *Authority) check(m *mistakes) {
	m.at("network", required(c.Network))
	m.at("keys", required(c.Keys))
	m.listens("listen", c.Listen)
	m.identities("allow", c.Allow)
	_, err := c.MeasureFrom()
	m.at("measure_from", err)
	_, err = Size(c.Memory, LeastRelayMemory)
	m.at("memory_budget", err)
	m.at("params", c.Params.Check())
	m.at("admin", adminAt(c.Admin, c.State), "state")
	m.at("log", level(c.Log))
}

// MeasureFrom is the address of this machine to measure from; invalid: any.
func (c *Authority) MeasureFrom() (netip.Addr, error) {
	if c.From == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(c.From)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is not an address, such as 192.0.2.7", c.From)
	}
	return a, nil
}

// Allowed are the relays that may join; nil: all.
func (c *Authority) Allowed() ([]cell.NodeID, error) { return identities(c.Allow) }

func (c *Client) check(m *mistakes) {
	m.at("network", required(c.Network))
	c.checkDoors(m)
	c.checkRules(m)
	m.at("admin", adminAt(c.Admin, c.State), "state")
	_, err := Size(c.Memory, LeastClientMemory)
	m.at("memory_budget", err)
	m.at("log", level(c.Log))
}

// Addrs are the addresses to advertise; none: those listened on.
func (c *Relay) Addrs() ([]netip.AddrPort, error) {
	var addrs []netip.AddrPort
	for _, s := range c.Advertise {
		a, err := netip.ParseAddrPort(s)
		if err != nil {
			return nil, fmt.Errorf("%q is not an address and a port, such as 192.0.2.1:9001 or [2001:db8::1]:9001", s)
		}
		addrs = append(addrs, a)
	}
	if len(addrs) == 0 {
		return nil, nil
	}
	return addrs, directory.CheckAddrs(addrs)
}

// Told are the addresses that others are told: those to advertise, or those listened on that others could dial. An error: there is none, or
// more than can be told. None without an error: only the system knows, as a name is listened on.
func (c *Relay) Told() (told []netip.AddrPort, err error) {
	if len(c.Advertise) > 0 {
		return c.Addrs()
	}
	for _, s := range c.Listen {
		host, port, err := net.SplitHostPort(s)
		a, noAddr := netip.ParseAddr(host)
		p, noPort := strconv.ParseUint(port, 10, 16)
		switch {
		case err != nil || noPort != nil:
			return nil, nil // which is a mistake in listen
		case host == "" || a.IsUnspecified():
		case noAddr != nil:
			return nil, nil
		default:
			told = append(told, netip.AddrPortFrom(a.Unmap(), uint16(cmp.Or(p, 9001)))) // of 0: one that the system picks
		}
	}
	if len(told) == 0 && len(c.Listen) > 0 {
		return nil, fmt.Errorf(`must say where others reach the relay, such as "192.0.2.1:9001": listen (%s) names no address that they could dial`, strings.Join(c.Listen, ", "))
	}
	slices.SortFunc(told, netip.AddrPort.Compare) // IPv4 first
	if err := directory.CheckAddrs(told); len(told) > 0 && err != nil {
		return nil, fmt.Errorf("must say where others reach the relay, as listen (%s) cannot be told them: %w", strings.Join(c.Listen, ", "), err)
	}
	return told, nil
}

// Policy is the exit policy; none: no exit.
func (c *Relay) Policy() (directory.Policy, error) {
	for _, s := range c.Exit {
		if _, err := directory.ParsePolicy([]string{s}); err != nil {
			return nil, &entryError{s, err}
		}
	}
	return directory.ParsePolicy(c.Exit)
}

// Servers are the DNS servers that an exit asks; none: the system's.
func (c *Relay) Servers() ([]netip.AddrPort, error) {
	var all []netip.AddrPort
	for _, s := range c.Resolvers {
		a, err := dns.ParseServer(s)
		if err != nil {
			return nil, &entryError{s, err}
		}
		all = append(all, a)
	}
	if len(all) > dns.MostServers {
		return nil, fmt.Errorf("%d servers, but at most %d are asked", len(all), dns.MostServers)
	}
	return all, nil
}

// UsualNotice is the exit notice of operators who have no file of their own.
const UsualNotice = "built-in"

// NoticeListen are the addresses at which an exit shows its notice: those that are given, or port 80 of those where links arrive.
func (c *Relay) NoticeListen() []string {
	if len(c.NoticeAt) > 0 {
		return c.NoticeAt
	}
	var all []string
	for _, a := range c.Listen {
		host, _, _ := net.SplitHostPort(a) // they were checked
		if at := net.JoinHostPort(host, "80"); !slices.Contains(all, at) {
			all = append(all, at)
		}
	}
	return all
}

// Relatives are the relays of the same operator.
func (c *Relay) Relatives() ([]cell.NodeID, error) { return identities(c.Family) }

func identities(texts []string) ([]cell.NodeID, error) {
	var ids []cell.NodeID
	for _, s := range texts {
		id, err := cell.ParseNodeID(s)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// adminAt checks where a node is looked into, besides its socket.
func adminAt(addr, state string) error {
	if addr == "" {
		return nil
	}
	if state == "" {
		return errors.New("needs a state folder, where its token is kept")
	}
	return admin.CheckListen(addr)
}

// StateOf is the state folder that a file of any kind of node names; "": none.
func StateOf(path string) (string, error) {
	text, err := read(path)
	if err != nil {
		return "", &Error{path, err}
	}
	var f struct {
		State string `toml:"state"`
	}
	f.State = givenFolder("STATE_DIRECTORY")
	if err := toml.Unmarshal(text, &f); err != nil {
		kind, unknown := KindOf(path)
		if unknown != nil {
			return "", unknown
		}
		if f := of(kind); f != nil {
			err = cmp.Or(strict.Decode(text, f), err) // the former says where
		}
		return "", &Error{path, err}
	}
	if f.State == "" || filepath.IsAbs(f.State) {
		return f.State, nil
	}
	return filepath.Join(filepath.Dir(path), f.State), nil
}

// givenFolder is the folder that a service manager made for the node and named in an environment variable (systemd.exec(5)), of
// several the first; "": there is none.
func givenFolder(variable string) string {
	dir, _, _ := strings.Cut(os.Getenv(variable), ":")
	if !filepath.IsAbs(dir) {
		return ""
	}
	return dir
}

// RuntimeFolder is the folder that a service manager gives for what is gone with the node, such as sockets; "": none.
func RuntimeFolder() string { return givenFolder("RUNTIME_DIRECTORY") }

// levels are how much is logged.
var levels = []string{"", "error", "warn", "info", "debug"}

func level(s string) error {
	for _, l := range levels {
		if s == l {
			return nil
		}
	}
	return fmt.Errorf("%q is none of error, warn, info, debug", s)
}
