package window

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"peel/testnet/story"
)

var begin = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

func after(s int) time.Time { return begin.Add(time.Duration(s) * time.Second) }

// network is a story of a small network in which something happened.
func network() *story.Story {
	s := story.New("local", "in a test", begin)
	for _, n := range []story.Node{
		{Name: "authority1", Role: story.Authority, State: story.Up},
		{Name: "authority2", Role: story.Authority, State: story.Up},
		{Name: "relay1", Role: story.Relay, State: story.Up, Flags: []string{"Guard", "Running"}, Bandwidth: 400_000},
		{Name: "relay2", Role: story.Relay, State: story.Up, Flags: []string{"Running"}, Bandwidth: 100_000},
		{Name: "relay3", Role: story.Relay, State: story.Up, Flags: []string{"Exit", "Running"}, Place: "Reykjavik"},
		{Name: "relay4", Role: story.Relay, State: story.Down},
		{Name: "client", Role: story.Client, State: story.Up},
		{Name: "world", Role: story.Server, State: story.Up},
	} {
		s.Node(n)
	}
	path := []string{"relay1", "relay2", "relay3"}
	s.Circuit(after(1), "client", story.Circuit{ID: 1, Path: path, State: story.Open}, "circuit 1 is open: relay1 → relay2 → relay3")
	for i := range 5 {
		s.Circuits(after(i+2), "client", []story.Circuit{{ID: 1, Path: path, State: story.Open, Purpose: "streams", Streams: 1, Sent: uint64(10 * i), Received: uint64(500 * i)}})
		s.Carried("relay1", uint64(510*i))
		s.Sample(after(i + 2))
	}
	s.Villain(after(4), "relay2", "tags cells")
	s.Weather(after(5), "storm")
	s.Period(story.Period{ValidAfter: after(5), Phase: "done", Votes: []string{"authority1", "authority2"}, Signatures: []string{"authority1"}, Needed: 2, Of: 2})
	s.Downloaded(story.Download{At: after(6), Client: "client", Path: path, Bytes: 1 << 20, FirstByte: 30 * time.Millisecond, Took: time.Second})
	s.Tell(story.Event{At: after(6), Node: "relay1", Kind: story.OfNode, Text: "says <script>alert(1)</script> & \x1b[31mred"})
	return s
}

// did is what was done to a network.
type did struct {
	mu  sync.Mutex
	all []string
}

func (d *did) act(what string) func(string) error {
	return func(name string) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if name == "nobody" {
			return errors.New("no node is called nobody")
		}
		d.all = append(d.all, what+" "+name)
		return nil
	}
}

func (d *did) list() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.all)
}

// open runs a window for the time of a test.
func open(t *testing.T, s *story.Story, a story.Actions) *Window {
	t.Helper()
	w, err := Open("127.0.0.1:0", s, a, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return w
}

// ask sends one request with headers, which come as name and value in turn.
func ask(t *testing.T, w *Window, method, path string, headers ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+w.l.Addr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	a, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a.StatusCode, string(body)
}

func TestWhoMayLookAndWhatMayBeDone(t *testing.T) {
	var d did
	w := open(t, network(), story.Actions{Kill: d.act("kill"), Restore: d.act("restore"), SetWeather: d.act("weather"), Weathers: []string{"calm", "storm"}})
	token := "Bearer " + w.door.Token
	for name, c := range map[string]struct {
		method, path string
		headers      []string
		want         int
	}{
		"the page":                {"GET", "/", nil, 200},
		"a script of it":          {"GET", "/graph.js", nil, 200},
		"the story":               {"GET", "/story", []string{"Authorization", token}, 200},
		"what came after":         {"GET", "/story?after=2", []string{"Authorization", token}, 200},
		"after what is no number": {"GET", "/story?after=-1", []string{"Authorization", token}, 400},
		"the story, no token":     {"GET", "/story", nil, 401},
		"the story, by a name":    {"GET", "/story", []string{"Authorization", token, "Host", "evil.example"}, 421},
		"the story, for a page":   {"GET", "/story", []string{"Authorization", token, "Origin", "http://evil.example"}, 403},
		"a story posted":          {"POST", "/story", []string{"Authorization", token}, 404},
		"of a node":               {"GET", "/lines?node=relay1", []string{"Authorization", token}, 200},
		"of a circuit":            {"GET", "/lines?circuit=client/1", []string{"Authorization", token}, 200},
		"of nobody":               {"GET", "/lines?node=nobody", []string{"Authorization", token}, 404},
		"of nothing":              {"GET", "/lines", []string{"Authorization", token}, 404},
		"kill":                    {"POST", "/kill?node=relay1", []string{"Authorization", token}, 200},
		"kill for the page":       {"POST", "/kill?node=relay1", []string{"Authorization", token, "Origin", "http://" + w.l.Addr().String()}, 200},
		"weather":                 {"POST", "/weather?name=calm", []string{"Authorization", token}, 200},
		"kill, no token":          {"POST", "/kill?node=relay2", nil, 401},
		"kill, wrong token":       {"POST", "/kill?node=relay2", []string{"Authorization", "Bearer " + strings.Repeat("A", 43)}, 401},
		"kill, for another page":  {"POST", "/kill?node=relay2", []string{"Authorization", token, "Origin", "http://evil.example"}, 403},
		"kill, by another port":   {"POST", "/kill?node=relay2", []string{"Authorization", token, "Sec-Fetch-Site", "same-site"}, 403},
		"kill, by a name":         {"POST", "/kill?node=relay2", []string{"Authorization", token, "Host", "evil.example"}, 421},
		"kill by a link":          {"GET", "/kill?node=relay2", []string{"Authorization", token}, 405},
		"kill whom":               {"POST", "/kill", []string{"Authorization", token}, 400},
		"kill nobody":             {"POST", "/kill?node=nobody", []string{"Authorization", token}, 409},
		"what it cannot":          {"POST", "/freeze?node=relay2", []string{"Authorization", token}, 404},
		"a fetch that is not":     {"POST", "/fetch", []string{"Authorization", token}, 404},
	} {
		if code, body := ask(t, w, c.method, c.path, c.headers...); code != c.want {
			t.Errorf("%s: %d, want %d: %.100s", name, code, c.want, body)
		}
	}
	got := d.list()
	slices.Sort(got)
	if want := []string{"kill relay1", "kill relay1", "weather calm"}; !slices.Equal(got, want) {
		t.Errorf("done: %v, want %v", got, want)
	}
}

func TestTheAnswerIsTheStoryAndWhatCanBeDone(t *testing.T) {
	var d did
	w := open(t, network(), story.Actions{Kill: d.act("kill"), Weathers: []string{"calm"}})
	_, body := ask(t, w, "GET", "/story?after=1", "Authorization", "Bearer "+w.door.Token)
	var v story.Snapshot
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(v.Can, []string{"kill"}) || !slices.Equal(v.Weathers, []string{"calm"}) || len(v.Nodes) != 8 || v.Events[0].Seq != 2 {
		t.Errorf("can %v, weathers %v, %d nodes, events from %d", v.Can, v.Weathers, len(v.Nodes), v.Events[0].Seq)
	}
	var keys map[string]any
	if err := json.Unmarshal([]byte(body), &keys); err != nil {
		t.Fatal(err)
	}
	for k, v := range keys {
		if v == nil {
			t.Errorf("%s is null: a page would have to ask whether it is there", k)
		}
	}
}

// A window shows one run after the other, says which it is, and does to the one that it shows what is asked.
func TestTheWindowShowsOneRunAfterTheOther(t *testing.T) {
	var d did
	w := open(t, network(), story.Actions{Kill: d.act("kill the first's")})
	look := func() (v story.Snapshot) {
		t.Helper()
		_, body := ask(t, w, "GET", "/story", "Authorization", "Bearer "+w.door.Token)
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := look(); v.Run != 1 || v.Network != "local" || v.Pace != "" {
		t.Errorf("run %d of %s at pace %q", v.Run, v.Network, v.Pace)
	}
	if code, _ := ask(t, w, "POST", "/pace?name=5x", "Authorization", "Bearer "+w.door.Token); code != http.StatusNotFound {
		t.Errorf("the pace of a run that has none: %d", code)
	}
	w.Show(story.New("second", "in a test", begin), story.Actions{
		Kill: d.act("kill the second's"), SetPace: d.act("pace"), Paces: []string{"paused", "5x"}, Pace: func() string { return "paused" },
	})
	if v := look(); v.Run != 2 || v.Network != "second" || len(v.Nodes) != 0 || v.Pace != "paused" || !slices.Equal(v.Paces, []string{"paused", "5x"}) || !slices.Equal(v.Can, []string{"kill", "pace"}) {
		t.Errorf("the second run: %+v", v)
	}
	for _, path := range []string{"/pace?name=5x", "/kill?node=relay1"} {
		if code, body := ask(t, w, "POST", path, "Authorization", "Bearer "+w.door.Token); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if got := d.list(); !slices.Equal(got, []string{"pace 5x", "kill the second's relay1"}) {
		t.Errorf("done: %q", got)
	}
}

// One who asks for more at a time than may be made is told to come back, and one action is done at a time.
func TestWhoeverComesWhenItIsFullIsToldSo(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	w := open(t, network(), story.Actions{Kill: func(string) error { close(entered); <-leave; return nil }, Freeze: func(string) error { return nil }})
	token := []string{"Authorization", "Bearer " + w.door.Token}
	first := make(chan int, 1)
	go func() {
		code, _ := ask(t, w, "POST", "/kill?node=relay1", token...)
		first <- code
	}()
	<-entered
	if code, _ := ask(t, w, "POST", "/freeze?node=relay1", token...); code != http.StatusTooManyRequests {
		t.Errorf("a second action: %d", code)
	}
	close(leave)
	if code := <-first; code != 200 {
		t.Errorf("the first action: %d", code)
	}
	for range mostLooks {
		w.looks <- struct{}{}
	}
	if code, _ := ask(t, w, "GET", "/story", token...); code != http.StatusTooManyRequests {
		t.Errorf("one look too many: %d", code)
	}
}

func TestTheWindowIsOnThisMachineAlone(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "192.0.2.1:80", ":0", "localhost:0"} {
		if w, err := Open(addr, network(), story.Actions{}, nil); err == nil {
			w.Close()
			t.Errorf("%s was taken", addr)
		}
	}
}

func TestAReportIsOneFileThatAsksForNothing(t *testing.T) {
	var b bytes.Buffer
	if err := Report(&b, network()); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, bad := range []string{"src=", "<link", "@import", "\nimport ", "\nexport ", "=\"http", "<script>alert"} {
		if strings.Contains(text, bad) {
			t.Errorf("there is %q in a report", bad)
		}
	}
	for _, want := range []string{"default-src 'none'", "relay4", "tags cells", `"circuit client/1"`, "Reykjavik", "uPlot"} {
		if !strings.Contains(strings.ReplaceAll(text, "&#39;", "'"), want) {
			t.Errorf("there is no %q in a report", want)
		}
	}
	named := map[string]bool{} // the scripts of the page become one, in which a name means one thing
	for _, m := range regexp.MustCompile(`(?m)^(?:const|let|class|function|async function) (\w+)`).FindAllStringSubmatch(text, -1) {
		if named[m[1]] {
			t.Errorf("there are two of %q", m[1])
		}
		named[m[1]] = true
	}
	if len(named) < 40 {
		t.Errorf("only %d names were found", len(named))
	}
	if strings.Count(text, "<script") != 3 || strings.Count(text, "</script>") != 3 {
		t.Errorf("%d scripts begin and %d end, want 3", strings.Count(text, "<script"), strings.Count(text, "</script>"))
	}
	if n := len(text); n > 300<<10 {
		t.Errorf("a small report has %d bytes", n)
	}
}

func TestOnATerminal(t *testing.T) {
	v := network().Snapshot(0)
	var b bytes.Buffer
	if err := Top(&b, v, View{}); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{"peel test network local  in a test, weather: storm  0:06\n", "relays up 3 of 4   circuits 1   streams 1   cells 510/s   to clients 691.0kB/s\n",
		"  relay2         relay     up               0          0  villain: tags cells\n", "  relay3         exit      up ", "  client/1   open     streams         1     500      10  relay1 > relay2 > relay3\n",
		"  from 0:05  done     2 of 2 voted, 1 signed (2 needed)\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Error("what a node says reaches the terminal as it is")
	}
	if a, c := strings.Index(text, "relay4"), strings.Index(text, "relay3 "); a > c {
		t.Error("a node that is down stands below one that is up")
	}
}

func TestATerminalIsFilledAndNoMore(t *testing.T) {
	for _, view := range []View{{80, 24, false}, {40, 10, true}, {200, 60, true}, {20, 1, false}, {1, 3, false}} {
		var b bytes.Buffer
		if err := Top(&b, network().Snapshot(0), view); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(b.String(), "\r\n")
		if len(lines) != view.Height {
			t.Errorf("%v: %d lines", view, len(lines))
		}
		for _, l := range lines {
			l = strings.TrimSuffix(l, "\x1b[K")
			for code := range map[string]bool{"0": true, "1": true, "2": true, "31": true, "32": true, "33": true, "36": true, "31;1": true} {
				l = strings.ReplaceAll(l, "\x1b["+code+"m", "")
			}
			if n := len([]rune(l)); n > view.Width || strings.Contains(l, "\x1b") {
				t.Errorf("%v: a line of %d letters: %q", view, n, l)
			}
		}
	}
}
