package conf

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"peel/directory"
)

// A unit is how many bytes, or bytes a second, one of it is.
type unit struct {
	name  string
	bytes float64
}

var (
	rateUnits = []unit{{"kB/s", 1e3}, {"MB/s", 1e6}, {"GB/s", 1e9}, {"kbit/s", 1e3 / 8}, {"Mbit/s", 1e6 / 8}, {"Gbit/s", 1e9 / 8}}
	sizeUnits = []unit{{"MiB", 1 << 20}, {"GiB", 1 << 30}, {"MB", 1e6}, {"GB", 1e9}}
	bulkUnits = []unit{{"kB", 1e3}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}}
)

// amount reads a number and a unit, within bounds. want says what it must be, for people.
func amount(s string, units []unit, least, most float64, want string) (float64, error) {
	text := strings.TrimRightFunc(s, func(r rune) bool { return unicode.IsLetter(r) || r == '/' || r == ' ' })
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, ok := plain(strings.TrimSpace(number))
		if !ok {
			continue
		}
		if b := n * u.bytes; b >= least && b <= most {
			return b, nil
		}
		return 0, fmt.Errorf("%q: must be %s", s, want)
	}
	number := strings.TrimSpace(text)
	if _, ok := plain(number); ok {
		if meant := nearestUnit(strings.TrimSpace(s[len(text):]), units); meant != "" {
			return 0, fmt.Errorf("%q: must be %s; did you mean %q?", s, want, number+" "+meant)
		}
	}
	return 0, fmt.Errorf("%q: must be %s", s, want)
}

// plain reads a number as people write it: digits, and perhaps a point.
func plain(s string) (float64, bool) {
	n, err := strconv.ParseFloat(s, 64)
	return n, err == nil && strings.Trim(s, "0123456789.") == ""
}

// nearestUnit is which unit somebody means who writes another; "": that cannot be told. Where it is a rate a small b is a bit.
func nearestUnit(s string, units []unit) string {
	s = strings.ReplaceAll(s, " ", "")
	s = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(s, "/s"), "/sec"), "ps")
	tries := []string{s, s + "B"}
	if strings.HasSuffix(s, "b") {
		tries = []string{s + "it", s}
	}
	for _, try := range tries {
		for _, u := range units {
			if strings.EqualFold(try, strings.TrimSuffix(u.name, "/s")) {
				return u.name
			}
		}
	}
	return ""
}

// ParseRate reads a rate such as "20 MB/s" or "100 Mbit/s" as bytes a second.
func ParseRate(s string) (uint64, error) {
	n, err := amount(s, rateUnits, 1e3, float64(directory.MaxBandwidth), `a rate of at least 1 kB/s and at most 1099 GB/s, such as "20 MB/s" or "100 Mbit/s"`)
	return uint64(n), err
}

// What a node needs of memory at least, in bytes.
const (
	LeastRelayMemory  = 64 << 20
	LeastClientMemory = 16 << 20
)

const mostMemory = 1 << 44

// Size reads a size in memory such as "512 MiB" or "2 GiB", least bytes at least; "": 0.
func Size(s string, least int64) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := amount(s, sizeUnits, float64(least), mostMemory, fmt.Sprintf(`a size of at least %d MiB and at most %d GiB, such as "512 MiB" or "2 GiB"`, least>>20, mostMemory>>30))
	return int64(n), err
}

const (
	leastBurst = 64e3 // bytes: a record of a link
	leastQuota = 100e6
	mostQuota  = 1e18
)

// Rate is the bandwidth in bytes a second; 0: not said.
func (c *Relay) Rate() (uint64, error) {
	if c.Bandwidth == "" {
		return 0, nil
	}
	return ParseRate(c.Bandwidth)
}

// AtOnce is the burst in bytes; 0: not said.
func (c *Relay) AtOnce() (uint64, error) {
	if c.Burst == "" {
		return 0, nil
	}
	n, err := amount(c.Burst, bulkUnits, leastBurst, mostMemory, `a size of at least 64 kB and at most 16 TiB, such as "40 MB"`)
	return uint64(n), err
}

// Allowance is the quota in bytes, and whether it is one a day; 0: not said.
func (c *Relay) Allowance() (bytes uint64, daily bool, err error) {
	switch c.Period {
	case "", "month", "day":
	default:
		return 0, false, &periodError{c.Period}
	}
	if c.Quota == "" {
		return 0, false, nil
	}
	n, err := amount(c.Quota, bulkUnits, leastQuota, mostQuota, `a size of at least 100 MB and at most 1000000 TB, such as "500 GB" or "2 TiB"`)
	return uint64(n), c.Period == "day", err
}

type periodError struct{ says string }

func (e *periodError) Error() string { return fmt.Sprintf("%q is neither month nor day", e.says) }

// checkTraffic says which keys about what the relay sends have values that cannot be.
func (c *Relay) checkTraffic(m *mistakes) {
	if _, err := c.AtOnce(); err != nil {
		m.at("burst", err)
	} else if c.Burst != "" && c.Bandwidth == "" {
		m.at("burst", errors.New("there is no bandwidth that it is a burst of: set that, or leave burst out"), "bandwidth")
	}
	_, _, err := c.Allowance()
	var period *periodError
	switch {
	case errors.As(err, &period):
		m.at("quota_period", err)
	case err != nil:
		m.at("quota", err)
	case c.Quota != "" && c.State == "":
		m.at("quota", errors.New("needs a state folder, where what was sent is kept between runs"), "state")
	}
}
