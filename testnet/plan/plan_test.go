package plan

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"peel/directory/strict"
)

const whole = `name = "all-of-it"
about = "every key"
seed = 7
length = "2m"
period = "10s"
voting = "2s"
weather = "rain"
authorities = 4
clients = 2
kept = true
measure = true

[relays]
count = 6
exits = 2
bandwidth = "1MB"
places = ["tokyo", "paris"]

[expect]
complete = 0.99
first_byte = "2s"
ready = "5s"
behind = "25s"
accused = ["authority2"]

[[relay]]
name = "relay3"
place = "london"
bandwidth = "20kB"
family = "f"

[[weathers]]
name = "rain"
delay = "20ms"
loss = 0.01

[[service]]
name = "web"
kind = "web"

[[load]]
to = "web"
count = 20
at_once = 4
size = "1MiB"

[[event]]
do = "kill"
node = "any relay"
at = "5s"
every = "10s"
for = "5s"

[[event]]
do = "weather"
weather = "storm"
at = "1m"
for = "10s"

[[villain]]
node = "relay3"
script = "tag"
`

func TestAPlanSaysWhatItsFileSays(t *testing.T) {
	p, err := Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if p.Seed != 7 || p.Relays.Bandwidth != 1_000_000 || p.Loads[0].Size != 1<<20 || p.Loads[0].Tries != 1 || time.Duration(p.Events[0].Every) != 10*time.Second {
		t.Errorf("%+v", p)
	}
	if !p.Measure || time.Duration(p.Expect.Ready) != 5*time.Second || time.Duration(p.Expect.Behind) != 25*time.Second {
		t.Errorf("%+v", p)
	}
	if p.Expect.ReconnectShare != 1 {
		t.Error("what was left out has lost its default")
	}
	if p.PlaceOf("relay3", 9) != "london" || !slices.Contains([]string{"tokyo", "paris"}, p.PlaceOf("relay4", 9)) {
		t.Error("relays are at other places")
	}
	text, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if !reflect.DeepEqual(p, again) {
		t.Errorf("%+v\nbecame\n%+v", p, again)
	}
	if c := p.Clone(); !reflect.DeepEqual(p, c) {
		t.Errorf("%+v\nhas the copy\n%+v", p, c)
	}
}

func TestMistakesAreSaidWithTheirLine(t *testing.T) {
	const web = "[[service]]\nname = \"web\"\nkind = \"web\"\n[[load]]\nto = \"web\"\n"
	for _, c := range []struct{ text, want string }{
		{"athorities = 4", `line 1: there is no key "athorities"; did you mean "authorities"?`},
		{"authorities = 99", "line 1: authorities: give 1 to 21"},
		{"length = \"soon\"", `give a time`},
		{"[relays]\nbandwidth = \"fast\"", "give a size"},
		{"[relays]\nbandwidth = \"-1\"", "give a size"},
		{"[relays]\nbandwidth = \"9999999999GiB\"", "give a size"},
		{"[relays]\ncount = 2", "line 2: relays.count: give 3 to 4000"},
		{"[relays]\ncount = 3\nexits = 4", "line 3: relays.exits: give 1 to the number of relays, 3"},
		{"[relays]\nplaces = [\"atlantis\"]", `there is no place "atlantis"`},
		{"weather = \"snow\"", `line 1: weather: there is no weather "snow": give one of calm, fair, bad, storm`},
		{"[[weathers]]\nname = \"calm\"", "is built in"},
		{"[[weathers]]\nname = \"x\"\nloss = nan", "loss: give 0 to 0.5"},
		{"[[relay]]\nname = \"relay13\"", "line 2: relay: name: there is no relay"},
		{"[[relay]]\nname = \"relay01\"", "there is no relay"},
		{"[[service]]\nname = \"relay1\"\nkind = \"web\"", "not the name of a node"},
		{"[[service]]\nname = \"x\"\nkind = \"ftp\"", "line 3: service: kind: give web, echo or sink"},
		{"[[load]]\nto = \"web\"", `there is no service "web"`},
		{"[[event]]\ndo = \"bless\"", `there is no event "bless": give one of kill`},
		{"[[event]]\ndo = \"kil\"", `there is no event "kil" (did you mean "kill"?): give one of kill`},
		{"[[event]]\ndo = \"kill\"", "say whom to kill"},
		{"[[event]]\ndo = \"kill\"\nnode = \"client1\"", "a client cannot be made to kill"},
		{"[[event]]\ndo = \"kill\"\nnode = \"relay1\"\n[[event]]\ndo = \"kill\"\nnode = \"nobody\"", `line 6: event: node: there is no node "nobody"`},
		{"[[event]]\ndo = \"kill\"\nnode = \"relay1\"\nevery = \"1ms\"", "at least 10ms"},
		{"[[event]]\ndo = \"kill\"\nnode = \"relay1\"\nat = \"1s\"\nevery = \"2562047h47m16.8s\"", "at most 9600h"},
		{"[[event]]\ndo = \"fill\"\nnode = \"relay1\"", "give kept = true"},
		{"kept = true\n[[event]]\ndo = \"slow-disk\"\nnode = \"relay1\"", "how much longer the disk takes"},
		{"[[expect.says]]\nnode = \"relay99\"\ntext = \"x\"", "no node \"relay99\""},
		{"[[expect.says]]\nnode = \"relay1\"", "printable characters"},
		{"[[event]]\ndo = \"skew\"\nnode = \"authority1\"", "how far the clock is wrong"},
		{"[[villain]]\nnode = \"relay1\"\nscript = \"equivocate\"", `relay cannot "equivocate": give one of tag`},
		{"[[villain]]\nnode = \"any relay\"\nscript = \"tag\"", "there is no node \"any relay\": give one of relay1 to relay12, authority1 to authority5, client1"},
		{"[[event]]\ndo = \"kill\"\nnode = \"any guard\"", "there is no node \"any guard\": give one of relay1 to relay12, authority1 to authority5, client1, any relay, any middle, any exit, any authority"},
		{"[[event]]\ndo = \"villain\"\nnode = \"any relay\"\nscript = \"tag\"", "name the villain"},
		{"[[service]]\nname = \"web\"\nkind = \"web\"\n[[villain]]\nnode = \"web\"\nscript = \"tag\"", "a service cannot be a villain"},
		{web + "tries = 0", "line 6: load: tries: give 1 to 100"},
		{web + "count = 0", "line 6: load: count: give 1 to 1000000"},
		{web + "at_once = 0", "line 6: load: at_once: give 1 to 10000"},
		{web + "timeout = \"0s\"", "line 6: load: timeout: give more than 0s"},
		{web + "size = \"0\"", "line 6: load: size: give 1 byte"},
		{web + "count = 3\nat_once = 4", "line 7: load: at_once: 4 at once, but count says that there are 3 in all"},
		{"period = \"0s\"", "line 1: period: give whole seconds"},
		{"[expect]\ncomplete = 1.5", "line 2: expect.complete: give a share"},
		{"[expect]\naccused = [\"relay1\"]", `there is no authority "relay1"`},
	} {
		if _, err := Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.text, err, c.want)
		}
	}
}

func TestTheTimetableFollowsFromTheSeed(t *testing.T) {
	p, err := Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	acts := p.Timetable()
	if !reflect.DeepEqual(acts, p.Timetable()) {
		t.Error("the same plan has two timetables")
	}
	q := p.Clone()
	q.Seed++
	if reflect.DeepEqual(acts, q.Timetable()) {
		t.Error("another seed kills the same relays")
	}
	if !slices.IsSortedFunc(acts, func(a, b Act) int { return int(a.At - b.At) }) {
		t.Error("it is not in order")
	}
	killed, back := 0, 0
	for _, a := range acts {
		if a.Do == Kill && !a.Undo {
			killed++
		}
		if a.Do == Kill && a.Undo {
			back++
		}
	}
	if killed != 12 || back != 12 {
		t.Errorf("%d killed and %d back, want 12: at 5 s and every 10 s of 2 m", killed, back)
	}
}

// Nobody who is down is killed again, and when all are nothing happens.
func TestChanceDrawsWhoIsThere(t *testing.T) {
	p := Default()
	p.Fill()
	p.Events = []Event{{Do: Kill, Node: "any relay", Every: Duration(time.Second)}}
	seen := map[string]bool{}
	for _, a := range p.Timetable() {
		if seen[a.Names[0]] {
			t.Errorf("%s is killed twice", a.Names[0])
		}
		seen[a.Names[0]] = true
	}
	if len(seen) != 12 {
		t.Errorf("%d of 12 relays were killed", len(seen))
	}
	p.Events = []Event{{Do: Kill, Node: "any exit", Every: Duration(time.Second), For: Duration(500 * time.Millisecond)}}
	for _, a := range p.Timetable() {
		if !slices.Contains([]string{"relay9", "relay10", "relay11", "relay12"}, a.Names[0]) {
			t.Errorf("%s is no exit", a.Names[0])
		}
	}
}

// The delays of the map are computed. Those between six of its cities are held to what a provider publishes of its own network: IBM Cloud,
// "Network latency for VPC", averages of 31 August to 29 September 2024, in ms there and back (of two directions, the lesser). Cables from
// Europe to Japan and to Brazil, and from Australia to Brazil, go by North America, which no great circle does.
func TestDelaysAreThoseOfTheWorld(t *testing.T) {
	for _, c := range []struct {
		a, b      string
		published float64
		round     bool // about
	}{
		{"toronto", "frankfurt", 93, false}, {"toronto", "london", 82, false}, {"toronto", "sydney", 214, false}, {"toronto", "tokyo", 162, false},
		{"toronto", "sao-paulo", 129, false}, {"frankfurt", "london", 13, false}, {"frankfurt", "sydney", 250, false}, {"frankfurt", "tokyo", 228, true},
		{"frankfurt", "sao-paulo", 196, true}, {"london", "sydney", 261, false}, {"london", "tokyo", 243, true}, {"london", "sao-paulo", 186, true},
		{"tokyo", "sydney", 115, false}, {"sydney", "sao-paulo", 328, true}, {"tokyo", "sao-paulo", 284, false},
	} {
		ms := 2 * Delay(c.a, c.b).Seconds() * 1000
		low, high := 0.85*c.published, 1.15*c.published
		if c.round {
			low, high = 0.55*c.published, 0.85*c.published
		}
		if !(ms >= low && ms <= high) {
			t.Errorf("%s to %s and back: %.1f ms, %.0f are published", c.a, c.b, ms, c.published)
		}
		if Delay(c.a, c.b) != Delay(c.b, c.a) {
			t.Errorf("%s to %s is not as long as back", c.a, c.b)
		}
	}
	if d := Delay("paris", "paris"); d <= 0 || d > 5*time.Millisecond {
		t.Errorf("within a city: %v", d)
	}
}

func TestShrinkLeavesWhatIsNeeded(t *testing.T) {
	p := Default()
	for i := range 8 {
		p.Events = append(p.Events, Event{Do: Kill, Node: fmt.Sprintf("relay%d", i+1)})
		p.Villains = append(p.Villains, Villain{Node: fmt.Sprintf("relay%d", i+1), Script: "tag"})
	}
	runs := 0
	got := Shrink(p, 100, func(q *Plan) bool {
		runs++
		return slices.ContainsFunc(q.Events, func(e Event) bool { return e.Node == "relay3" }) &&
			slices.ContainsFunc(q.Villains, func(v Villain) bool { return v.Node == "relay5" })
	})
	if len(got.Events) != 1 || len(got.Villains) != 1 || len(p.Events) != 8 {
		t.Errorf("left: %v and %v, after %d runs", got.Events, got.Villains, runs)
	}
	runs = 0
	Shrink(p, 3, func(*Plan) bool { runs++; return true })
	if runs != 3 {
		t.Errorf("%d runs, want 3", runs)
	}
}

func TestSizesPrintAsTheyAreRead(t *testing.T) {
	for _, s := range []string{"0", "500", "20kB", "1MiB", "10MB", "3GiB", "2KiB", "1GB"} {
		var b Bytes
		if err := b.UnmarshalText([]byte(s)); err != nil || b.String() != s {
			t.Errorf("%s: %v, %v", s, b, err)
		}
	}
	v, err := ParseVillain("relay3=tag")
	if err != nil || v != (Villain{Node: "relay3", Script: "tag"}) {
		t.Error(v, err)
	}
	if _, err := ParseVillain("relay3"); err == nil {
		t.Error("relay3 alone is a villain")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("[[event]]\ndo=\"part\"\nnodes=[\"relay1\"]\nat=\"1s\"\n"))
	f.Add([]byte("length=\"9600h\"\n[[event]]\ndo=\"kill\"\nnode=\"any relay\"\nevery=\"1s\"\n"))
	f.Add([]byte("length=\"24h\"\n[[event]]\ndo=\"freeze\"\nnode=\"any middle\"\nat=\"1m\"\nevery=\"1m\"\nfor=\"1h\"\nuntil=\"20h\"\n"))
	f.Add([]byte("[[event]]\ndo=\"kill\"\nnode=\"relay1\"\nat=\"1s\"\nevery=\"2562047h47m16.8s\"\n"))
	f.Add([]byte("kept=true\n[[event]]\ndo=\"fill\"\nnode=\"any authority\"\n[[event]]\ndo=\"slow-disk\"\nnode=\"relay2\"\nby=\"1s\"\n"))
	f.Add([]byte("[[event]]\ndo=\"skew\"\nnode=\"client1\"\nby=\"-1h\"\n[[event]]\ndo=\"limit\"\nnodes=[\"any exit\",\"relay1\"]\nrate=\"1kB\"\n[[event]]\ndo=\"restart\"\nnode=\"relay1\"\n"))
	f.Add([]byte("[[event]]\ndo=\"villain\"\nnode=\"authority1\"\nscript=\"mute\"\nweather=\"\\u0000\\\"\"\n[[villain]]\nnode=\"client1\"\nscript=\"flood\"\nrefused=3\n"))
	f.Add([]byte("weather=\"storm\"\n[[expect.says]]\nnode=\"relay1\"\ntext=\"full\"\n[[service]]\nname=\"e\"\nkind=\"echo\"\nplace=\"tokyo\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		out, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(out)
		if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		if a, b := fmt.Sprintf("%+v", p), fmt.Sprintf("%+v", again); a != b { // in which no list is as an empty one
			t.Fatalf("%s\nbecame\n%s\nby\n%s", a, b, out)
		}
		if draws(p) > 1_000_000 {
			return // it takes its time
		}
		acts := p.Timetable()
		if len(acts) > 2*mostActs {
			t.Fatalf("%d acts", len(acts))
		}
		for i, a := range acts {
			if a.At < 0 || a.At > time.Duration(p.Length) || i > 0 && a.At < acts[i-1].At {
				t.Fatalf("act %d of %d, in a run of %v: %v at %v", i, len(acts), p.Length, a, a.At)
			}
			for _, n := range a.Names[:min(len(a.Names), 10)] {
				if _, ok := p.RoleOf(n); !ok {
					t.Fatalf("act %d: there is no %q: %v", i, n, a)
				}
			}
		}
	})
}

// draws is how many names Timetable may look at.
func draws(p *Plan) (n int) {
	for i := range p.Events {
		e := &p.Events[i]
		times := 1
		if e.Every > 0 {
			times += int(p.Length / e.Every)
		}
		n += times * len(e.Targets()) * p.Relays.Count
	}
	return n
}

func FuzzParseVillain(f *testing.F) {
	for _, s := range []string{"relay3=tag", "=", "relay3", "a=b=c", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVillain(s)
		if err == nil && (v.Node+"="+v.Script != s || strings.Contains(v.Node, "=")) || (err == nil) != strings.Contains(s, "=") {
			t.Errorf("%q became %+v, %v", s, v, err)
		}
	})
}

// All that is wrong with a plan is said at once, but not what follows from something else that is wrong.
func TestAllMistakesOfAPlanAreSaid(t *testing.T) {
	_, err := Parse([]byte(`nmae = "x"
length = soon
clients = 0
[relays]
count = "many"
[[load]]
to = "web"
at = "2h"
tries = 101
[[event]]
do = "kill"
node = "relay99"
every = "1ms"
[[event]]
do = "blow"
at = 5
`))
	var e *strict.Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	var got []string
	for _, m := range e.All() {
		got = append(got, m.Error())
	}
	want := []string{
		`line 1: there is no key "nmae"; did you mean "name"?`, `line 2: length: put it in quotes: length = "soon"`, "line 3: clients: give 1 to 1000",
		"line 5: relays.count: must be a whole number", `line 7: load: to: there is no service "web"`, "line 9: load: tries: give 1 to 100; 1: what fails is not tried again",
		"line 13: event: every: give at least 10ms", "line 15: event: do: there is no event", `line 16: event: at: "5": give a time`,
	}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Of mistakes in what is expected, too, the same is always told first.
func TestMistakesOfExpectationsAreSaidInOneOrder(t *testing.T) {
	p := Default()
	p.Fill()
	x := &p.Expect
	x.Complete, x.FirstTry, x.ReconnectShare = 2, 2, 2
	x.FirstByte, x.Slowest, x.Reconnect, x.MissedPeriods, x.Breaches, x.Deeds, x.Ended, x.Torn, x.Again, x.Behind, x.Ready, x.Refused = -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1
	want := strings.Fields("complete first_try reconnect_share first_byte slowest reconnect missed_periods breaches deeds ended torn again behind ready refused")
	for range 5 {
		var got []string
		for _, f := range p.Faults() {
			got = append(got, strings.TrimPrefix(f.Key, "expect."))
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Authorities all over the world have time to hear each other, whatever the weather, and however it came.
func TestUsualTimesSuitTheWeather(t *testing.T) {
	seconds := func(n int) Duration { return Duration(n) * Duration(time.Second) }
	for _, w := range weathers {
		p := Default()
		p.SetWeather(w.Name)
		if w.Name != Calm {
			if phase := time.Duration(p.Voting) / 3; phase/2 < 6*p.Farthest() {
				t.Errorf("%s: half of a phase is %v, and a request of the farthest takes %v", w.Name, phase/2, 6*p.Farthest())
			}
		}
		parsed, err := Parse([]byte("weather = \"" + w.Name + "\"\nauthorities = 5\n"))
		if err != nil {
			t.Fatal(err)
		}
		if parsed.Period != p.Period || parsed.Voting != p.Voting || parsed.Check() != nil {
			t.Errorf("%s: a file has %v and %v, a flag %v and %v", w.Name, parsed.Period, parsed.Voting, p.Period, p.Voting)
		}
	}
	p := Default()
	p.Period, p.Voting = seconds(20), seconds(7)
	if p.SetWeather("storm"); p.Period != seconds(20) || p.Voting != seconds(7) {
		t.Errorf("times that somebody gave became %v and %v", p.Period, p.Voting)
	}
	p.Voting = Duration(1200 * time.Millisecond)
	p.Weather = Calm
	if p.SetWeather("fair"); p.Period != seconds(20) || p.Voting != seconds(10) {
		t.Errorf("of a period of 20 s, %v is for voting", p.Voting)
	}
}

// What is refused to a villain is expected of clients alone.
func TestOnlyOfClientsIsItExpectedThatTheyAreRefused(t *testing.T) {
	p := Default()
	p.Fill()
	p.Villains = []Villain{{"relay1", "tag", 1}, {"client1", "flood", 100}, {"client1", "circles", -1}}
	var got []string
	for _, f := range p.Faults() {
		got = append(got, f.Key)
	}
	if want := []string{"villain[0].refused", "villain[2].refused"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
