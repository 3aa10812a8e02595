package authority

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"peel/cell"
	"peel/directory"
	"peel/directory/strict"
)

// Limits of lists (spec/admission.md).
const (
	maxRules    = 10_000 // in all files together
	maxPrefixes = 1_000  // of them by address
	maxReason   = 120    // bytes
)

// Lists are what an operator decided of relays: who may join, who may not, and who only as what.
type Lists struct {
	allow, reject, badExit, middleOnly list
	named                              map[cell.NodeID]bool // who may join by the configuration itself; nil: it says nothing of that
}

// list is one of them.
type list struct {
	relays, families map[cell.NodeID]*Rule
	prefixes         []*Rule
}

// A Rule is a line of a list: whom it is about, by one of three, and why.
type Rule struct {
	Relay   cell.NodeID  // this one
	Address netip.Prefix // or those at any of these addresses
	Family  cell.NodeID  // or this one, and those that name it as their family
	Reason  string       // as the relay's operator is told
	By      string       // who decided it; may be empty
}

// Subject says whom a rule is about.
func (r *Rule) Subject() string {
	switch {
	case !r.Relay.IsZero():
		return "relay " + r.Relay.String()
	case r.Address.IsValid():
		return "address " + r.Address.String()
	}
	return "family of " + r.Family.String()
}

// find returns the rule of a list that is about a relay, or nil.
func (l *list) find(d *directory.Descriptor) *Rule {
	if r := l.relays[d.ID]; r != nil {
		return r
	}
	if r := l.families[d.ID]; r != nil {
		return r
	}
	for _, id := range d.Family {
		if r := l.families[id]; r != nil {
			return r
		}
	}
	for _, r := range l.prefixes {
		if slices.ContainsFunc(d.Addrs, func(a netip.AddrPort) bool { return r.Address.Contains(a.Addr()) }) {
			return r
		}
	}
	return nil
}

func (l *list) len() int { return len(l.relays) + len(l.families) + len(l.prefixes) }

// lets says whether a relay may join, as far as it is for the allowed ones to say: if there are none, all may.
func (l *Lists) lets(d *directory.Descriptor) bool {
	return l.named == nil && l.allow.len() == 0 || l.named[d.ID] || l.allow.find(d) != nil
}

// name takes in whom the configuration allows; nil: it says nothing of that.
func (l *Lists) name(ids []cell.NodeID) {
	if ids == nil {
		return
	}
	l.named = make(map[cell.NodeID]bool, len(ids))
	for _, id := range ids {
		l.named[id] = true
	}
}

// marks returns the flags that the lists give a relay, and the rule of each.
func (l *Lists) marks(d *directory.Descriptor) (marks directory.Flags, rules []*Rule) {
	if r := l.badExit.find(d); r != nil {
		marks, rules = marks|directory.BadExit, append(rules, r)
	}
	if r := l.middleOnly.find(d); r != nil {
		marks, rules = marks|directory.MiddleOnly, append(rules, r)
	}
	return marks, rules
}

// ListCounts says how many rules each list has.
type ListCounts struct {
	Allow      int `json:"allow"`
	Reject     int `json:"reject"`
	BadExit    int `json:"badexit"`
	MiddleOnly int `json:"middleonly"`
}

func (l *Lists) counts() ListCounts {
	return ListCounts{l.allow.len(), l.reject.len(), l.badExit.len(), l.middleOnly.len()}
}

// listsFile is a file of rules.
type listsFile struct {
	Allow      []listsRule `toml:"allow"`
	Reject     []listsRule `toml:"reject"`
	BadExit    []listsRule `toml:"badexit"`
	MiddleOnly []listsRule `toml:"middleonly"`
}

type listsRule struct {
	Relay   string `toml:"relay"`
	Address string `toml:"address"`
	Family  string `toml:"family"`
	Reason  string `toml:"reason"`
	By      string `toml:"by"`
}

// ReadLists reads the files of lists, all of them or, with an error that names file and line, none.
func ReadLists(files []string) (*Lists, error) {
	l := new(Lists)
	for _, name := range files {
		text, err := readList(name)
		if err == nil {
			err = l.parse(text)
		}
		if err == nil {
			continue
		}
		var at *strict.Error
		if !errors.As(err, &at) || at.Line == 0 {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		var all []error
		for _, e := range append([]*strict.Error{at}, at.More...) {
			all = append(all, fmt.Errorf("%s:%d: %s", name, e.Line, e.Text))
		}
		return nil, errors.Join(all...)
	}
	return l, nil
}

func readList(name string) ([]byte, error) {
	st, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("no such file: write it, empty if nobody is listed, or take it out of the configuration")
	}
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > strict.MostBytes {
		return nil, fmt.Errorf("not a file of at most %d bytes", strict.MostBytes)
	}
	return os.ReadFile(name)
}

// parse adds the rules of a file. After an error the lists are of no use.
func (l *Lists) parse(text []byte) error {
	var f listsFile
	err := strict.Decode(text, &f)
	var wrong []*strict.Error
	for _, part := range []struct {
		name  string
		rules []listsRule
		to    *list
	}{{"allow", f.Allow, &l.allow}, {"reject", f.Reject, &l.reject}, {"badexit", f.BadExit, &l.badExit}, {"middleonly", f.MiddleOnly, &l.middleOnly}} {
		for i := range part.rules {
			r, key, err := part.rules[i].rule()
			if err == nil {
				err = l.add(part.to, r)
			}
			if err != nil && len(wrong) < strict.MostTold {
				at := strings.TrimSuffix(fmt.Sprintf("%s[%d].%s", part.name, i, key), ".")
				wrong = append(wrong, &strict.Error{Key: at, Line: strict.LineIn(string(text), part.name, i, key), Text: fmt.Sprintf("%s: %v", strings.TrimSuffix(part.name+"."+key, "."), err)})
			}
		}
	}
	return strict.With(err, wrong)
}

// rule checks a rule. With an error it says which key is wrong, "" for all of it.
func (f *listsRule) rule() (r *Rule, key string, err error) {
	r = &Rule{Reason: f.Reason, By: f.By}
	given := 0
	if f.Relay != "" {
		given++
		if r.Relay, err = cell.ParseNodeID(f.Relay); err != nil {
			return nil, "relay", err
		}
	}
	if f.Family != "" {
		given++
		if r.Family, err = cell.ParseNodeID(f.Family); err != nil {
			return nil, "family", err
		}
	}
	if f.Address != "" {
		given++
		if r.Address, err = parsePrefix(f.Address); err != nil {
			return nil, "address", err
		}
	}
	if given != 1 {
		return nil, "", fmt.Errorf("a rule must have one of relay, address and family; this has %d", given)
	}
	for _, t := range []struct {
		key, text string
		least     int
	}{{"reason", f.Reason, 1}, {"by", f.By, 0}} {
		odd := strings.ContainsFunc(t.text, func(c rune) bool { return c < 0x20 || c > 0x7e })
		if len(t.text) < t.least || len(t.text) > maxReason || odd {
			return nil, t.key, fmt.Errorf("must be %d to %d letters of ASCII: it is told to the relay's operator", t.least, maxReason)
		}
	}
	return r, "", nil
}

// parsePrefix reads an address, or a range of them in one spelling.
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, aerr := netip.ParseAddr(s)
		if aerr != nil {
			return p, fmt.Errorf("%q is neither an address nor a range such as 192.0.2.0/24", s)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	switch {
	case p.Addr().Is4In6() || p.Addr().Zone() != "":
		return p, fmt.Errorf("%q: write an IPv4 address as such, and no zone", s)
	case p != p.Masked():
		return p, fmt.Errorf("%q has bits below its length: did you mean %v?", s, p.Masked())
	}
	return p, nil
}

// add puts a rule on a list. Of two about the same the first stands.
func (l *Lists) add(to *list, r *Rule) error {
	c := l.counts()
	if c.Allow+c.Reject+c.BadExit+c.MiddleOnly >= maxRules {
		return fmt.Errorf("more than %d rules", maxRules)
	}
	put := func(m *map[cell.NodeID]*Rule, id cell.NodeID) {
		if *m == nil {
			*m = map[cell.NodeID]*Rule{}
		}
		if (*m)[id] == nil {
			(*m)[id] = r
		}
	}
	switch {
	case !r.Relay.IsZero():
		put(&to.relays, r.Relay)
	case !r.Family.IsZero():
		put(&to.families, r.Family)
	case len(to.prefixes) >= maxPrefixes:
		return fmt.Errorf("more than %d rules by address", maxPrefixes)
	default:
		to.prefixes = append(to.prefixes, r)
	}
	return nil
}
