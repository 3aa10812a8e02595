package conf

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"peel/client/path"
)

// Rules are what the client's paths must keep to.
func (c *Client) Rules() (path.Rules, error) {
	_, r, err := c.rules()
	if err != nil {
		return r, err
	}
	return r, c.readCountries(r.Exclude.Countries, r.Exits.Countries)
}

// rules also says which key an error is about. It does not read the lists of countries.
func (c *Client) rules() (key string, r path.Rules, err error) {
	if r.Own, err = identities(c.Own); err != nil {
		return "own_relays", r, err
	}
	if r.Exclude, err = path.ParseRelays(c.Exclude); err != nil {
		return "exclude", r, err
	}
	if r.Exits, err = path.ParseRelays(c.ExcludeExits); err != nil {
		return "exclude_exits", r, err
	}
	if key := "exclude"; (r.Exclude.Countries != nil || r.Exits.Countries != nil) && len(c.Countries) == 0 {
		if r.Exclude.Countries == nil {
			key = "exclude_exits"
		}
		return key, r, errors.New("a country is excluded, and countries names no list of which addresses are in it, such as Debian's tor-geoipdb has")
	}
	if r.Lenient = c.Lenient; c.Lenient && len(c.Exclude) == 0 && len(c.ExcludeExits) == 0 {
		return "exclude_lenient", r, errors.New("true, but nothing is excluded: name relays in exclude or exclude_exits, or leave it false")
	}
	return "", r, nil
}

// checkRules says which keys about paths have values that cannot be.
func (c *Client) checkRules(m *mistakes) {
	relays := func(s string) error { _, err := path.ParseRelays([]string{s}); return err }
	m.identities("own_relays", c.Own)
	each(m, "exclude", c.Exclude, relays, nil)
	each(m, "exclude_exits", c.ExcludeExits, relays, nil)
	key, _, err := c.rules()
	if in := new(entryError); err == nil || slices.ContainsFunc(*m, func(x mistake) bool { return x.key == key && errors.As(x.err, &in) }) {
		return // it was told
	}
	m.at(key, err, "exclude", "exclude_exits", "countries")
}

// readCountries reads the lists of countries for all that want some.
func (c *Client) readCountries(wanted ...*path.Countries) error {
	wanted = slices.DeleteFunc(wanted, func(w *path.Countries) bool { return w == nil })
	for _, name := range c.Countries {
		for _, w := range wanted {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			err = w.Read(f)
			f.Close()
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}
