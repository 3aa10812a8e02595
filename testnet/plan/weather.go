package plan

import (
	"maps"
	"math"
	"slices"
	"time"
)

// Calm is the weather without any: the machine's own loopback.
const Calm = "calm"

// Weather is what lies between nodes.
type Weather struct {
	Name   string   `toml:"name"`
	Delay  Duration `toml:"delay,omitempty"`  // one way, between any two, added to that of the map
	Map    float64  `toml:"map,omitempty"`    // how many times the delay between the places counts; 0: places make no difference
	Jitter Duration `toml:"jitter,omitempty"` // up to so much more, at random
	Rate   Bytes    `toml:"rate,omitempty"`   // a second, of one connection; 0: without limit
	Loss   float64  `toml:"loss,omitempty"`   // of segments, 0 to 0.5
	Resets float64  `toml:"resets,omitempty"` // of writes, 0 to 0.5, at which the connection breaks
}

var weathers = []Weather{
	{Name: Calm},
	{Name: "fair", Map: 1, Jitter: Duration(time.Millisecond)},
	{Name: "bad", Map: 1.5, Jitter: Duration(30 * time.Millisecond), Rate: 2_500_000, Loss: 0.01},
	{Name: "storm", Map: 3, Jitter: Duration(200 * time.Millisecond), Rate: 500_000, Loss: 0.04, Resets: 0.0005},
}

// BuiltIn names the weathers that every plan knows.
func BuiltIn() []string {
	var names []string
	for _, w := range weathers {
		names = append(names, w.Name)
	}
	return names
}

// WeatherNames names the weathers of the plan: those that every plan knows, and its own.
func (p *Plan) WeatherNames() []string {
	names := BuiltIn()
	for _, w := range p.Weathers {
		names = append(names, w.Name)
	}
	return names
}

// WeatherCalled is the weather of a name.
func (p *Plan) WeatherCalled(name string) (Weather, bool) {
	for _, all := range [][]Weather{p.Weathers, weathers} {
		for _, w := range all {
			if w.Name == name {
				return w, true
			}
		}
	}
	return Weather{}, false
}

func (w *Weather) check(f *faults, at string) {
	f.unless(w.Name != "", at+"name", "must not be empty")
	f.unless(!slices.Contains(BuiltIn(), w.Name), at+"name", "%q is built in: give another", w.Name)
	f.unless(w.Delay >= 0 && w.Delay <= Duration(time.Minute), at+"delay", "give 0s to 1m")
	f.unless(w.Jitter >= 0 && w.Jitter <= Duration(time.Minute), at+"jitter", "give 0s to 1m")
	f.unless(w.Map >= 0 && w.Map <= 100, at+"map", "give 0 to 100")
	f.unless(w.Loss >= 0 && w.Loss <= 0.5, at+"loss", "give 0 to 0.5")
	f.unless(w.Resets >= 0 && w.Resets <= 0.5, at+"resets", "give 0 to 0.5")
}

// place is where a city is, in degrees.
type place struct{ lat, long float64 }

// The map: cities where much of what is reached stands.
var places = map[string]place{
	"amsterdam": {52.37, 4.90}, "frankfurt": {50.11, 8.68}, "helsinki": {60.17, 24.94}, "johannesburg": {-26.20, 28.05},
	"london": {51.51, -0.13}, "los-angeles": {34.05, -118.24}, "mumbai": {19.08, 72.88}, "new-york": {40.71, -74.01},
	"paris": {48.86, 2.35}, "sao-paulo": {-23.55, -46.63}, "singapore": {1.35, 103.82}, "stockholm": {59.33, 18.07},
	"sydney": {-33.87, 151.21}, "tokyo": {35.68, 139.69}, "toronto": {43.65, -79.38}, "warsaw": {52.23, 21.01},
}

// Places names the places of the map, in order.
func Places() []string { return slices.Sorted(maps.Keys(places)) }

const (
	earth     = 6371.0 // km, its mean radius
	fibre     = 200.0  // km a millisecond: light in glass
	wayAround = 1.5    // how much longer cables are than the way as the crow flies
	lastMile  = 500 * time.Microsecond
)

// Delay is how long bytes take one way between two places. It is computed, not measured: light in fibre along the great circle, times
// 1.5 for the way that cables take, and half a millisecond at each end. Of most pairs that comes within 15 % of what is published; those
// whose cables go another way round are up to 45 % too short (docs/testnet.md).
func Delay(a, b string) time.Duration {
	p, q := places[a], places[b]
	rad := math.Pi / 180
	h := math.Pow(math.Sin((q.lat-p.lat)*rad/2), 2) + math.Cos(p.lat*rad)*math.Cos(q.lat*rad)*math.Pow(math.Sin((q.long-p.long)*rad/2), 2)
	km := 2 * earth * math.Asin(math.Min(1, math.Sqrt(h)))
	return (time.Duration(km/fibre*wayAround*float64(time.Millisecond)) + 2*lastMile).Round(10 * time.Microsecond)
}
