package conf

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Text is relay.toml with these values, every key explained.
func (c *Relay) Text() string {
	var b text
	b.line("# A relay of a peel network. Start it with: peel relay --config THIS-FILE")
	b.key("network", c.Network, "The network file: who the authorities are. Paths are relative to this file.")
	b.key("keys", c.Keys, "The folder of the relay's keys. Keep it safe: the identity in it is the relay.")
	b.key("state", c.State, `Where the directory is kept between runs. "": nowhere. Left out: in $STATE_DIRECTORY.`)
	b.key("nickname", c.Nickname, "1 to 19 letters and digits, for people. Relays are told apart by their identity.")
	b.key("contact", c.Contact, "How to reach you. It is published.")
	b.list("listen", c.Listen, everyAddress...)
	b.list("advertise", c.Advertise, "Where others reach the relay, at most one IPv4 and one IPv6 address. []: as listen.")
	b.flag("assume_reachable", c.Assume, "Before it announces an address the relay has others try whether they reach it there, and says in the log and peel status",
		"what came of it. true: it announces all of them untested, and learns only from the authorities, hours later, if one is wrong.")
	b.key("bandwidth", c.Bandwidth, `What the relay offers, and sends at most, such as "20 MB/s" or "100 Mbit/s": as much comes in. "": it offers 10 MB/s,`,
		"and sends what it can.")
	b.key("burst", c.Burst, `How much of that it sends at once after a calm, such as "40 MB". "": that of a second.`)
	b.key("quota", c.Quota, `How much it sends in a month or a day, such as "500 GB" or "2 TiB"; as much comes in. When it is nearly used up the relay`,
		`takes no new circuits, and says so in its descriptor, until the next period. "": any number.`)
	b.key("quota_period", c.Period, `"month" or "day", of UTC. "": month.`)
	b.key("memory_budget", c.Memory, `How much memory others can make the relay use, such as "512 MiB" or "2 GiB": how many links, circuits and`,
		`streams it takes, and how much waits on them, go by it. "": half of what the machine has, 16 GiB at most.`)
	c.bounds(&b)
	b.list("exit_policy", c.Exit, `What may leave the network here; the first rule that matches counts, and what none matches is`,
		`refused. []: nothing, no exit. For the web: ["accept *:80,443"]. A rule names addresses and ports, as in`,
		`"reject 192.0.2.0/24:*" or "accept [2001:db8::]/32:80,8000-8080". What is no open internet is refused whatever * says.`)
	b.list("resolvers", c.Resolvers, `DNS servers that an exit asks, such as "192.0.2.53" or "[2001:db8::53]:5353": best one of your own on this machine,`,
		"as a server sees all names that are asked for here. []: those of the system.")
	b.key("exit_notice", c.Notice, `A page that tells who looks up the address of an exit what it is, over HTTP: "built-in", or a file of HTML, 64 KiB at`,
		`most. "": none.`)
	b.list("exit_notice_listen", c.NoticeAt, "Where that page is shown. []: port 80 of the addresses in listen.")
	b.list("family", c.Family, "Identities of your other relays. No path uses two of one family.")
	b.key("admin", c.Admin, `Where metrics and the status page are, besides the socket in the state folder (peel status --page): an address of`,
		`this machine, such as "127.0.0.1:9270", behind the token that is kept in the state folder. "": nowhere.`)
	sandbox(&b, c.Open)
	b.key("log", c.Log, `How much is logged: "error", "warn", "info" or "debug".`)
	return b.String()
}

// Text is authority.toml with these values, every key explained.
func (c *Authority) Text() string {
	var b text
	b.line("# A directory authority of a peel network. Start it with: peel authority --config THIS-FILE")
	b.key("network", c.Network, "The network file: who the authorities are. Paths are relative to this file.")
	b.key("keys", c.Keys, "The folder of the authority's signing keys, their certificates and its link key. If identity.key is in it as well, as in",
		"test networks, the authority certifies its signing keys by itself, and whoever takes this machine is the authority.",
		"Else it needs a new certificate at least every 89 days, and warns from 14 days before: see peel keys --help.")
	b.key("state", c.State, `Where descriptors, votes and the directory are kept between runs. "": nowhere. Left out: in $STATE_DIRECTORY.`)
	b.list("listen", c.Listen, everyAddress...)
	b.list("allow", c.Allow, "Identities of the relays that may join. []: all, unless a list says otherwise.")
	b.list("lists", c.Lists, "Files that say which relays may join, which may not, and which are bad exits or middles only, and why",
		"(spec/admission.md). SIGHUP or peel reload loads them anew: all of them, or none if one has a mistake.")
	b.flag("private_addresses", c.Private, "Whether relays may have addresses that the internet does not reach: for networks of one house or machine.")
	b.key("admin", c.Admin, `Where metrics and the status page are, besides the socket in the state folder (peel status --page): an address of`,
		`this machine, such as "127.0.0.1:9270", behind the token that is kept in the state folder. "": nowhere.`)
	b.flag("measure", c.Measure, "Whether this authority measures how fast relays are, through circuits such as clients use. What is found counts where at",
		"least three authorities measured. It takes traffic: of each relay some MB a period. In a network on one machine: false.")
	b.key("measure_from", c.From, "An address of this machine to measure from, better another than the one in the network file, so that relays do not",
		`recognise who calls. "": any.`)
	b.key("memory_budget", c.Memory, `How much memory others can make the authority use by their links and requests, such as "512 MiB"; the directory itself comes to`,
		`that. "": half of what the machine has, 16 GiB at most.`)
	sandbox(&b, c.Open)
	b.key("log", c.Log, `How much is logged: "error", "warn", "info" or "debug".`)
	b.explain([]string{"What this authority votes for (spec/directory.md, section 6), such as: distinct-subnets = 0"})
	b.line("[params]")
	for _, name := range slices.Sorted(maps.Keys(c.Params)) {
		fmt.Fprintf(&b, "%s = %d\n", name, c.Params[name])
	}
	return b.String()
}

// ListsText is an example of a file of lists, in which nobody is listed.
const ListsText = `# Lists of relays of a peel authority (spec/admission.md). A rule names one of relay (an identity), address (one or a range)
# and family (a relay, and those that name it as their family), and says why: the relay's operator is told. Take the # away, then
# load the lists with SIGHUP or peel reload; the log says whom they concern.

# [[reject]]                      # may not join
# address = "192.0.2.0/24"
# reason = "answers with forged pages, mail somebody at example.net"
# by = "alice, 2026-03-01"

# [[badexit]]                     # must not be the last relay
# relay = "27ltz7pdoytuj3kbevaiuthkershqen6dxn4sjpfktlreacrmkpa"
# reason = "its resolver lies"

# [[middleonly]]                  # neither first nor last
# family = "27ltz7pdoytuj3kbevaiuthkershqen6dxn4sjpfktlreacrmkpa"
# reason = "two hundred relays of an operator nobody knows"

# [[allow]]                       # once there is one, only these may join
# relay = "27ltz7pdoytuj3kbevaiuthkershqen6dxn4sjpfktlreacrmkpa"
# reason = "a member"
`

// Text is client.toml with these values, every key explained.
func (c *Client) Text() string {
	var b text
	b.line("# A client of a peel network. Start it with: peel client --config THIS-FILE")
	b.key("network", c.Network, "The network file: who the authorities are. Paths are relative to this file.")
	b.key("state", c.State, `Where the directory and the guards are kept between runs: the few relays by which you enter the network, for`,
		`months. "": nowhere, and each start chooses new ones, which is a risk.`)
	b.key("socks", c.SOCKS, "Where your programs find the client, as a SOCKS 5, 4a or 4 proxy or an HTTP proxy for https (CONNECT). Keep it on",
		`this machine: who reaches it, uses it. (0.0.0.0 would be all its IPv4 addresses, [::] all of IPv6.)`,
		`"": only at the tables [[listen]] below.`)
	b.key("dns", c.DNS, `Where programs that know no proxy may look names up, over UDP and TCP, such as "127.0.0.1:9253". "": nowhere.`,
		"They must still be made to connect through the client.")
	b.list("own_relays", c.Own, "Identities of relays that you run yourself. None of your paths has one.")
	b.list("exclude", c.Exclude, `Relays that no path may have: identities, addresses, ranges of them, such as "192.0.2.0/24", or countries, such as "{de}"`,
		`("{??}": addresses that the lists in countries do not have). The more you`, "exclude, the more your paths differ from those of others: exclude little.")
	b.list("exclude_exits", c.ExcludeExits, "The same for the last relay of a path only.")
	b.flag("exclude_lenient", c.Lenient, "Whether those two may be broken where nothing else works. false: then it fails, and says why.")
	b.list("countries", c.Countries, "Files that say which addresses are in which country, read if a country is excluded: lines FIRST,LAST,CODE, such as",
		`"/usr/share/tor/geoip" and "/usr/share/tor/geoip6" of Debian's tor-geoipdb. Such lists err: they tell where an owner is registered.`)
	b.flag("no_racing", c.NoRacing, "A connection that takes much longer to come about than most is tried on a second circuit as well, and the faster one is",
		"used: the target may see a second connection that ends at once. true: never.")
	b.key("memory_budget", c.Memory, `How much may wait for your programs to read it, such as "256 MiB": when more does, the download that holds`,
		`most is ended. "": an eighth of what the machine has, 1 GiB at most.`)
	b.key("admin", c.Admin, `Where metrics and the status page are, besides the socket in the state folder (peel status --page): an address of`,
		`this machine, such as "127.0.0.1:9270", behind the token that is kept in the state folder. "": nowhere.`)
	sandbox(&b, c.Open)
	b.key("log", c.Log, `How much is logged: "error", "warn", "info" or "debug".`)
	c.tables(&b)
	return b.String()
}

// everyAddress explains listen.
var everyAddress = []string{
	`Where links arrive: addresses of this machine. "0.0.0.0:9001" is all of its IPv4 ones and no others, "[::]:9001" all of its`,
	"IPv6 ones and no others: for both, name both.",
}

func sandbox(b *text, off bool) {
	b.flag("no_sandbox", off, "On Linux the running node confines itself (landlock) to this file's folder and those of the network file, its keys, state",
		"and sockets, so that whoever breaks into it finds nothing else of its user's. true: it does not.")
}

// text is a file being written.
type text struct{ strings.Builder }

func (t *text) line(s string) { fmt.Fprintln(t, s) }

func (t *text) explain(why []string) {
	t.line("")
	for _, w := range why {
		t.line("# " + w)
	}
}

func (t *text) key(name, value string, why ...string) {
	t.explain(why)
	fmt.Fprintf(t, "%s = %s\n", name, quote(value))
}

func (t *text) flag(name string, value bool, why ...string) {
	t.explain(why)
	fmt.Fprintf(t, "%s = %t\n", name, value)
}

func (t *text) list(name string, values []string, why ...string) {
	t.explain(why)
	qs := make([]string, len(values))
	for i, v := range values {
		qs[i] = quote(v)
	}
	fmt.Fprintf(t, "%s = [%s]\n", name, strings.Join(qs, ", "))
}

// quote writes a TOML basic string.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, "\\u%04X", r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
