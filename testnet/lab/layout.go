package lab

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/relay"
	"peel/testnet/memnet"
	"peel/testnet/plan"
	"peel/testnet/story"
	"peel/testnet/villain"
)

const (
	slack           = 10 * time.Second // from the first consensus, or a whole period if that is less, to the timetable
	certificateLife = 89 * 24 * time.Hour
)

// What machines are for.
const (
	roleAuthority = "authority"
	roleRelay     = "relay"
	roleClient    = "client"
	roleService   = "service"
)

// exitPolicy is what exits carry: the machines of the network.
func (l *Lab) exitPolicy() []string {
	all, _ := l.machines[0].Addr.Addr().Prefix(8)
	return []string{"accept " + all.String() + ":*", "reject *:*"}
}

// secret is 32 bytes that follow from the seed, a name and a purpose.
func (l *Lab) secret(name, purpose string) []byte {
	h := sha256.New()
	binary.Write(h, binary.BigEndian, l.plan.Seed)
	h.Write([]byte("peel lab key v1|" + name + "|" + purpose))
	return h.Sum(nil)
}

func (l *Lab) signingKey(name, purpose string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(l.secret(name, purpose))
}

func (l *Lab) exchangeKey(name, purpose string) (*ecdh.PrivateKey, error) {
	k, err := ecdh.X25519().NewPrivateKey(l.secret(name, purpose))
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	return k, nil
}

// lay makes the network's file and all nodes, none of which is started.
func (l *Lab) lay(now time.Time) error {
	p := l.plan
	start := now.UTC().Add(l.ground.Traits().Settling + time.Duration(p.Voting) + time.Second).Truncate(time.Second)
	l.setBegin(start.Add(min(time.Duration(p.Period), slack)))
	l.network = &directory.Network{
		Name: p.Name, Threshold: directory.MinThreshold(p.Authorities),
		Schedule: directory.Schedule{Start: start, Period: time.Duration(p.Period), Voting: time.Duration(p.Voting)},
	}
	for k := range p.Authorities {
		n := &node{lab: l, name: fmt.Sprintf("authority%d", k+1), role: roleAuthority}
		var err error
		if n.addr, n.port, err = l.place(n.name, n.role, story.Authority); err != nil {
			return err
		}
		if err := l.keysOfAuthority(n); err != nil {
			return err
		}
		l.add(n)
	}
	for k := range l.nodes {
		a := l.nodes[k]
		c := directory.Certificate{
			Network: l.network.ID(), Identity: a.id, SigningKey: directory.SigningKey(a.signing.Public().(ed25519.PublicKey)),
			NotBefore: now.UTC().Truncate(time.Second).Add(-time.Hour), NotAfter: now.UTC().Truncate(time.Second).Add(certificateLife - time.Hour),
		}
		var err error
		if a.certificate, err = c.Certify(a.keys.Identity); err != nil {
			return err
		}
	}
	for k := range p.Relays.Count {
		n := &node{lab: l, name: fmt.Sprintf("relay%d", k+1), role: roleRelay, exit: p.Exit(k + 1)}
		var err error
		if n.addr, n.port, err = l.place(n.name, n.role, story.Relay); err != nil {
			return err
		}
		if err := l.keysOfRelay(n, now); err != nil {
			return err
		}
		l.add(n)
	}
	for _, n := range l.nodes {
		if n.exit { // until the first consensus says what it is
			l.story.Change(n.name, func(x *story.Node) { x.Flags = []string{"Exit"} })
		}
	}
	if err := l.families(); err != nil {
		return err
	}
	for _, v := range p.Villains {
		if n := l.byName[v.Node]; n != nil {
			n.script = v.Script
			n.mind.Set(v.Script)
			l.story.Villain(now, n.name, v.Script)
		}
	}
	for k := range p.Clients {
		name := fmt.Sprintf("client%d", k+1)
		addr, port, err := l.place(name, roleClient, story.Client)
		if err != nil {
			return err
		}
		l.clientAddrs = append(l.clientAddrs, netip.AddrPortFrom(addr, port))
		l.clientHosts[name] = new(host)
	}
	for _, s := range p.Services {
		addr, port, err := l.place(s.Name, roleService, story.Server)
		if err != nil {
			return err
		}
		l.services[s.Name] = &service{name: s.Name, kind: s.Kind, addr: addr, port: port}
	}
	return nil
}

// place gives the next machine to a node, a client or a service.
func (l *Lab) place(name, role, shown string) (netip.Addr, uint16, error) {
	i := len(l.machines)
	at, err := l.ground.Place(i, role)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	m := Machine{Name: name, Role: role, Place: l.plan.PlaceOf(name, i), Addr: at}
	l.machines = append(l.machines, m)
	l.places[at.Addr()] = m.Place
	l.story.Node(story.Node{Name: name, Role: shown, Place: m.Place, Addr: at.Addr().String(), State: story.Starting})
	return at.Addr(), at.Port(), nil
}

func (l *Lab) add(n *node) {
	n.mind = villain.NewMind(l.plan.Seed, time.Sleep)
	l.nodes = append(l.nodes, n)
	l.byName[n.name] = n
}

func (l *Lab) keysOfAuthority(n *node) (err error) {
	n.keys = relay.Keys{Identity: l.signingKey(n.name, "identity")}
	if n.keys.Link, err = l.exchangeKey(n.name, "link"); err != nil {
		return err
	}
	n.signing = l.signingKey(n.name, "signing")
	n.id = n.keys.ID()
	l.network.Authorities = append(l.network.Authorities, directory.AuthorityInfo{
		Nickname: n.name, ID: n.id, LinkKey: cell.Key(n.keys.Link.PublicKey().Bytes()), Addrs: []netip.AddrPort{netip.AddrPortFrom(n.addr, n.port)},
	})
	return nil
}

func (l *Lab) keysOfRelay(n *node, now time.Time) (err error) {
	n.keys = relay.Keys{Identity: l.signingKey(n.name, "identity"), Made: now}
	if n.keys.Link, err = l.exchangeKey(n.name, "link"); err != nil {
		return err
	}
	if n.keys.Onion, err = l.exchangeKey(n.name, "onion"); err != nil {
		return err
	}
	n.id = n.keys.ID()
	return nil
}

// families tells the relays of one family of each other.
func (l *Lab) families() error {
	of := make(map[string][]*node)
	for _, r := range l.plan.Relay {
		if r.Family != "" {
			of[r.Family] = append(of[r.Family], l.byName[r.Name])
		}
	}
	for _, members := range of {
		for _, a := range members {
			for _, b := range members {
				if a != b {
					a.family = append(a.family, b.id)
				}
			}
		}
	}
	return nil
}

// bandwidth is what a relay's machine sends in a second, at most; 0: no limit.
func (l *Lab) bandwidth(name string) plan.Bytes {
	if b := l.plan.Special(name).Bandwidth; b > 0 {
		return b
	}
	return l.plan.Relays.Bandwidth
}

// setWeather changes what lies between the machines.
func (l *Lab) setWeather(name string) error {
	w, _ := l.plan.WeatherCalled(name)
	if err := l.ground.SetWays(l.ways(w)); err != nil {
		return err
	}
	l.story.Weather(time.Now(), name)
	return nil
}

// ways are those of a weather.
func (l *Lab) ways(w plan.Weather) func(from, to netip.Addr) memnet.Way {
	places := l.places // no longer changes
	return func(from, to netip.Addr) memnet.Way {
		d := time.Duration(w.Delay)
		if w.Map > 0 {
			d += time.Duration(w.Map * float64(plan.Delay(places[from], places[to])))
		}
		return memnet.Way{Delay: d, Jitter: time.Duration(w.Jitter), Rate: int(w.Rate), Loss: w.Loss, Resets: w.Resets}
	}
}
