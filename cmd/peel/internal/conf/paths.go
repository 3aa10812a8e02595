package conf

import (
	"errors"

	"peel/client/path"
)

// Rules are what the client's paths must keep to.
func (c *Client) Rules() (path.Rules, error) {
	_, r, err := c.rules()
	return r, err
}

// rules also says which key an error is about.
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
	if r.Lenient = c.Lenient; c.Lenient && len(c.Exclude) == 0 && len(c.ExcludeExits) == 0 {
		return "exclude_lenient", r, errors.New("true, but nothing is excluded: name relays in exclude or exclude_exits, or leave it false")
	}
	return "", r, nil
}
