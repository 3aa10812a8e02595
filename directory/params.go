package directory

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Params are numbers that the authorities set for the whole network, by name. A name that this
// version does not know is carried along, so that newer relays and clients can use it.
type Params map[string]int32

// Param is a parameter this version knows.
type Param struct {
	Name     string
	Default  int32 // where the consensus says nothing
	Min, Max int32 // what it says is pulled into these bounds
}

// The parameters that this version knows (spec/directory.md, section 6).
var (
	ParamDistinctSubnets = Param{"distinct-subnets", 1, 0, 1}      // 1: no two relays of a path in one IPv4 /16 or IPv6 /32
	ParamRelaysPerAddr   = Param{"relays-per-address", 2, 1, 1024} // on one IPv4 address or IPv6 /64
)

// KnownParams lists them, by name.
var KnownParams = []Param{ParamDistinctSubnets, ParamRelaysPerAddr}

// Limits of parameters in one document.
const (
	MaxParams    = 256
	maxParamName = 40
)

// Get returns a parameter's value, within its bounds, or its default.
func (p Params) Get(k Param) int32 {
	v, ok := p[k.Name]
	if !ok {
		return k.Default
	}
	return min(max(v, k.Min), k.Max)
}

// Check refuses more than 256 parameters, names that cannot be written, and values of known
// parameters out of their bounds.
func (p Params) Check() error {
	if err := p.checkNames(); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	for _, k := range KnownParams {
		if v, ok := p[k.Name]; ok && (v < k.Min || v > k.Max) {
			return fmt.Errorf("directory: parameter %s = %d: must be %d to %d", k.Name, v, k.Min, k.Max)
		}
	}
	return nil
}

func (p Params) checkNames() error {
	if len(p) > MaxParams {
		return fmt.Errorf("%d parameters, but at most %d are allowed", len(p), MaxParams)
	}
	for name := range p {
		if err := checkParamName(name); err != nil {
			return err
		}
	}
	return nil
}

func checkParamName(s string) error {
	ok := len(s) > 0 && len(s) <= maxParamName && s[0] >= 'a' && s[0] <= 'z'
	for _, c := range []byte(s) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return fmt.Errorf("parameter %q: a name has 1 to %d of a-z, 0-9 and -, a letter first", clip(s), maxParamName)
	}
	return nil
}

// append writes one line a parameter, by name.
func (p Params) append(b []byte) []byte {
	for _, name := range slices.Sorted(maps.Keys(p)) {
		b = appendLine(b, "param", name+" "+strconv.FormatInt(int64(p[name]), 10))
	}
	return b
}

// params takes any number of parameter lines; nil when there are none.
func (r *reader) params() Params {
	var p Params
	last := ""
	for r.has("param") {
		name, val, _ := strings.Cut(r.take("param"), " ")
		if r.err == nil && len(p) == MaxParams {
			r.fail("more than %d parameters", MaxParams)
		}
		if r.err == nil && name <= last {
			r.fail("parameter %q is out of order or there twice", clip(name))
		}
		parsed(r, 0, checkParamName(name))
		v, err := strconv.ParseInt(val, 10, 32)
		if err != nil || strconv.FormatInt(v, 10) != val {
			r.fail("parameter %s: %q is not a whole number of %d to %d", clip(name), clip(val), math.MinInt32, math.MaxInt32)
		}
		if r.err != nil {
			return nil
		}
		if p == nil {
			p = Params{}
		}
		p[strings.Clone(name)], last = int32(v), name
	}
	return p
}
