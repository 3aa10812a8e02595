// Package testnet is a whole network on one machine: authorities, relays and a client, each the node that a real network
// would run, joined over loopback.
//
//	n, err := testnet.New(testnet.Config{}) // 5 authorities, 12 relays
//	go n.Run(ctx)
//	err = n.Ready(ctx)
//	c, err := client.New(client.Config{Network: n.Layout().Network}) // a client of one's own, with all that client.Config has
//
// Ready is when the first consensus is there: two to seven seconds with the defaults, which leave a busy machine time; one or two where little
// else runs, with
//
//	testnet.Config{Size: testnet.Size{Authorities: 1, Relays: 4, Exits: 2}, Period: time.Second, Voting: 300 * time.Millisecond}
//
// Where votes come too late, as the machine is slow or has much else to do, the network begins anew with a slower schedule, as often as it must
// (Config.Anew); under the race detector give Voting several seconds at once. A client of one's own is ready some hundredths of a second after that.
//
// New opens the listeners, Run closes them: end a Net that is not to run by calling Run with a ctx that has ended.
package testnet

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/relay"
)

// Layout is a network that is planned and not yet running: who its nodes are, their keys, and where each listens.
type Layout struct {
	Network     *directory.Network
	Authorities []Authority
	Relays      []Relay
}

// Authority is a planned authority.
type Authority struct {
	Nickname    string
	Addr        netip.AddrPort
	Identity    ed25519.PrivateKey
	Signing     ed25519.PrivateKey
	Certificate directory.Certificate
	Link        *ecdh.PrivateKey
}

// Relay is a planned relay.
type Relay struct {
	Nickname string
	Addr     netip.AddrPort
	Keys     relay.Keys
	Exit     bool
}

// ExitPolicy is what the exits of a local network carry: everything, this machine included.
var ExitPolicy = []string{"accept 127.0.0.1:*", "accept 127.0.0.0/8:*", "accept [::1]:*", "accept *:*"}

// networkFile is the network's, in the folder of all nodes.
const networkFile = "network.toml"

// certificateLife is how long the signing keys of a planned network last.
const certificateLife = 90 * 24 * time.Hour

// Size says how large a network is.
type Size struct {
	Authorities, Relays, Exits int // Exits of the Relays are exits
}

// Check refuses a network that could not work.
func (s Size) Check() error {
	switch {
	case s.Authorities < 1 || s.Authorities > 21:
		return fmt.Errorf("testnet: %d authorities: give 1 to 21", s.Authorities)
	case s.Relays < 3 || s.Relays > 200:
		return fmt.Errorf("testnet: %d relays: give 3 to 200; a path has three", s.Relays)
	case s.Exits < 1 || s.Exits > s.Relays:
		return fmt.Errorf("testnet: %d exits: give 1 to the number of relays, %d", s.Exits, s.Relays)
	}
	return nil
}

// Place gives node i of the network its address. Authorities come first, then relays.
type Place func(i int) (netip.AddrPort, error)

// Loopback places nodes on this machine: each on an address of its own out of 127.0.0.0/8, in different /16 networks as
// the path rules want, at the port given; or, where the machine has only 127.0.0.1, there, at the port given and those
// that follow it.
func Loopback(port uint16) Place {
	whole := HasLoopbackNet()
	return func(i int) (netip.AddrPort, error) {
		if whole {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(20 + i), 0, 1}), port), nil
		}
		if int(port)+i > math.MaxUint16 {
			return netip.AddrPort{}, fmt.Errorf("testnet: ports from %d on are too few for so many nodes: begin lower", port)
		}
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port+uint16(i)), nil
	}
}

// HasLoopbackNet says whether this machine answers on all of 127.0.0.0/8, as Linux does.
func HasLoopbackNet() bool {
	l, err := net.Listen("tcp", "127.20.0.1:0")
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// Plan makes the keys, addresses and network file of a network whose first consensus is due at start (zero: at the
// next whole period) and one every period after that, with the last of it, voting, spent on making it.
func Plan(name string, s Size, place Place, start time.Time, period, voting time.Duration, now time.Time) (*Layout, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	n := &directory.Network{Name: name, Schedule: directory.Schedule{Start: start, Period: period, Voting: voting}}
	l := &Layout{Network: n}
	for i := range s.Authorities {
		addr, err := place(i)
		if err != nil {
			return nil, err
		}
		a := Authority{Nickname: fmt.Sprintf("authority%d", i+1), Addr: addr}
		if _, a.Identity, err = ed25519.GenerateKey(rand.Reader); err != nil {
			return nil, fmt.Errorf("testnet: %w", err)
		}
		if _, a.Signing, err = ed25519.GenerateKey(rand.Reader); err != nil {
			return nil, fmt.Errorf("testnet: %w", err)
		}
		if a.Link, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return nil, fmt.Errorf("testnet: %w", err)
		}
		l.Authorities = append(l.Authorities, a)
		n.Authorities = append(n.Authorities, directory.AuthorityInfo{
			Nickname: a.Nickname, ID: a.ID(), LinkKey: cell.Key(a.Link.PublicKey().Bytes()), Addrs: []netip.AddrPort{addr},
		})
	}
	n.Threshold = directory.MinThreshold(s.Authorities)
	for i := range l.Authorities {
		a := &l.Authorities[i]
		from := now.UTC().Truncate(time.Second).Add(-time.Hour)
		c := directory.Certificate{
			Network: n.ID(), Identity: a.ID(), SigningKey: directory.SigningKey(a.Signing.Public().(ed25519.PublicKey)),
			NotBefore: from, NotAfter: from.Add(certificateLife),
		}
		var err error
		if a.Certificate, err = c.Certify(a.Identity); err != nil {
			return nil, err
		}
	}
	for i := range s.Relays {
		addr, err := place(s.Authorities + i)
		if err != nil {
			return nil, err
		}
		keys, err := relay.NewKeys()
		if err != nil {
			return nil, err
		}
		l.Relays = append(l.Relays, Relay{
			Nickname: fmt.Sprintf("relay%d", i+1), Addr: addr, Keys: keys,
			Exit: i >= s.Relays-s.Exits,
		})
	}
	return l, nil
}

// ID is the authority's identity.
func (a *Authority) ID() cell.NodeID { return cell.NodeID(a.Identity.Public().(ed25519.PublicKey)) }

// Params are what the authorities of the network vote for: where relays share networks, paths need not keep apart, and where
// many share an address, all of them count.
func (l *Layout) Params() directory.Params {
	p := directory.Params{}
	perAddr, perNet := map[netip.Addr]int{}, map[netip.Prefix]int{}
	for _, r := range l.Relays {
		a := r.Addr.Addr()
		bits := 32
		if a.Is4() {
			bits = 16
		}
		net, _ := a.Prefix(bits)
		perAddr[a]++
		perNet[net]++
		if perNet[net] > 1 {
			p[directory.ParamDistinctSubnets.Name] = 0
		}
		if int64(perAddr[a]) > int64(directory.ParamRelaysPerAddr.Default) {
			p[directory.ParamRelaysPerAddr.Name] = directory.ParamRelaysPerAddr.Max
		}
	}
	return p
}

// save writes the network file and the keys of all nodes, a folder each, into dir; nothing if dir is "".
func (l *Layout) save(dir string) error {
	if dir == "" {
		return nil
	}
	text, err := l.Network.Encode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("testnet: %w", err)
	}
	file := filepath.Join(dir, networkFile)
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("testnet: %s is there already: give a folder without a network in it", file)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return fmt.Errorf("testnet: %w", err)
	}
	for i := range l.Authorities {
		if err := l.Authorities[i].Save(filepath.Join(dir, l.Authorities[i].Nickname, "keys")); err != nil {
			return err
		}
	}
	for _, r := range l.Relays {
		if err := r.Keys.Save(filepath.Join(dir, r.Nickname, "keys")); err != nil {
			return err
		}
	}
	return nil
}

// Save writes the authority's keys and certificate into a folder, each a file that only its owner can read.
func (a *Authority) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("testnet: %w", err)
	}
	for name, key := range map[string]any{"identity.key": a.Identity, "signing.key": a.Signing, "link.key": a.Link} {
		if err := relay.SaveKey(filepath.Join(dir, name), key); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "certificate"), a.Certificate.Append(nil), 0o600); err != nil {
		return fmt.Errorf("testnet: %w", err)
	}
	return nil
}
