package window

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"peel/testnet/browser"
	"peel/testnet/story"
)

// looks are how a page is looked at: wide and narrow, light and dark.
var looks = []browser.View{{Width: 1440, Height: 900}, {Width: 1440, Height: 900, Dark: true}, {Width: 390, Height: 844}, {Width: 390, Height: 844, Dark: true}}

// apart says whether no node's mark lies on another's, all within the graph, and whether the page is no wider than the window.
const apart = `(() => {
	const g = document.querySelector("#graph").getBoundingClientRect();
	const all = [...document.querySelectorAll("#graph .node .body")].map((e) => e.getBoundingClientRect());
	const inside = all.every((r) => r.left >= g.left && r.right <= g.right && r.top >= g.top && r.bottom <= g.bottom);
	const clear = all.every((a, i) => all.every((b, j) => i >= j || a.right < b.left || b.right < a.left || a.bottom < b.top || b.bottom < a.top));
	return inside && clear && document.documentElement.scrollWidth <= innerWidth;
})()`

func slow(t *testing.T) {
	if os.Getenv("PEEL_SLOW") == "" {
		t.Skip("looks at the page in a browser: set PEEL_SLOW=1 to run it")
	}
}

// In a browser the page shows the network and does what its buttons say; with a keyboard as well.
func TestInABrowserTheWindowShowsANetworkAndKillsARelay(t *testing.T) {
	slow(t)
	s := network()
	kill := func(node string) error {
		s.State(node, story.Down)
		s.Tell(story.Event{At: after(7), Node: node, Kind: story.OfNode, Text: "was killed"})
		return nil
	}
	restore := func(node string) error { s.State(node, story.Up); return nil }
	w := open(t, s, story.Actions{Kill: kill, Restore: restore, SetWeather: func(name string) error { s.Weather(after(8), name); return nil }, Weathers: []string{"calm", "storm"}})
	b := browser.Start(t)
	p := b.Open(t, w.Link(), looks[0])
	ctx := t.Context()
	p.Until(ctx, `document.querySelectorAll("#graph .node").length === 8`)
	p.Until(ctx, `document.querySelector("#graph .way.used") && document.querySelectorAll(".uplot canvas").length === 3`)
	p.Until(ctx, `location.hash === ""`) // the token is not in the history

	click := func(what string) {
		t.Helper()
		p.Until(ctx, `document.querySelector('`+what+`')`)
		if err := p.Eval(`document.querySelector('`+what+`').dispatchEvent(new MouseEvent("click", {bubbles: true}))`, nil); err != nil {
			t.Fatal(err)
		}
	}
	click(`[data-node="relay1"]`)
	p.Until(ctx, `document.querySelector("#story h2").textContent.startsWith("relay1") && document.querySelector("#story").textContent.includes("says <script>alert(1)</script>")`)
	click(`#story [data-key="kill"]`)
	p.Until(ctx, `document.querySelector('[data-node="relay1"]').classList.contains("down")`)
	p.Until(ctx, `document.querySelector("#events").textContent.includes("was killed")`)
	click(`#story [data-key="restore"]`)
	p.Until(ctx, `!document.querySelector('[data-node="relay1"]').classList.contains("down")`)
	click(`#circuits [data-key="row client/1"]`)
	p.Until(ctx, `document.querySelector("#story h2").textContent.includes("Circuit 1") && document.querySelector("#graph .way.chosen")`)
	if err := p.Eval(`(() => { const w = document.querySelector("#weather"); w.value = "calm"; w.dispatchEvent(new Event("change")); })()`, nil); err != nil {
		t.Fatal(err)
	}
	p.Until(ctx, `document.querySelector("#about").textContent.includes("calm")`)
	p.Until(ctx, `document.querySelector('[data-node="relay2"]').classList.contains("villain")`)

	// The keyboard: to the nodes, to another, its story, and away.
	p.Press("Escape")
	p.Until(ctx, `document.querySelector("#story h2").textContent === "How to look"`)
	if err := p.Eval(`document.querySelector('[data-node="client"]').focus()`, nil); err != nil {
		t.Fatal(err)
	}
	p.Press("ArrowRight")
	p.Press("Enter")
	p.Until(ctx, `document.activeElement.dataset.node !== "client" && document.querySelector("#story h2").textContent.startsWith(document.activeElement.dataset.node)`)
	p.Press("Escape")
	if err := p.Eval(`document.querySelector('[data-node="relay2"]').focus()`, nil); err != nil {
		t.Fatal(err)
	}
	p.Press("Enter")
	p.Until(ctx, `document.querySelector("#story [data-key=kill]")`)
	p.Press("Tab")
	p.Press("Tab")
	p.Until(ctx, `document.activeElement.dataset.key === "kill"`)
	p.Press("Enter")
	p.Until(ctx, `document.activeElement.dataset.key === "restore"`)
	p.Press("Enter")
	p.Until(ctx, `document.activeElement.dataset.key === "kill"`)
	p.Press("Escape")

	for _, v := range looks {
		p.Look(v)
		p.Until(ctx, fmt.Sprintf("innerWidth === %d && matchMedia('(prefers-color-scheme: dark)').matches === %v", v.Width, v.Dark))
		p.Until(ctx, apart)
	}

	// Another run, whose pace can be chosen.
	next := story.New("second", "in virtual time", begin)
	next.Node(story.Node{Name: "relay1", Role: story.Relay, State: story.Up})
	next.Tell(story.Event{At: after(1), Node: "relay1", Kind: story.OfHand, Text: "by hand: something"})
	var pace atomic.Value
	pace.Store("paused")
	set := func(name string) error { pace.Store(name); return nil }
	w.Show(next, story.Actions{SetPace: set, Paces: []string{"paused", "5x", "full"}, Pace: func() string { return pace.Load().(string) }})
	p.Until(ctx, `document.querySelectorAll("#graph .node").length === 1 && document.querySelector("#about").textContent.includes("second")`)
	p.Until(ctx, `document.querySelector("#events").textContent.includes("by hand") && !document.querySelector("#events").textContent.includes("was killed")`)
	p.Until(ctx, `document.querySelector("#tiles").textContent.includes("stands still")`)
	if err := p.Eval(`(() => { const s = document.querySelector("#pace"); s.value = "5x"; s.dispatchEvent(new Event("change")); })()`, nil); err != nil {
		t.Fatal(err)
	}
	p.Until(ctx, `document.querySelector("#pace").value === "5x" && !document.querySelector("#tiles").textContent.includes("stands still")`)
	if pace.Load() != "5x" {
		t.Errorf("the pace is %v", pace.Load())
	}
	if c := p.Complaints(); len(c) > 0 {
		t.Errorf("the page complains: %q", c)
	}
}

// A hundred relays and more have their places too.
func TestInABrowserALargeNetworkHasRoom(t *testing.T) {
	slow(t)
	s := story.New("large", "in a test", begin)
	for i := range 120 {
		n := story.Node{Name: fmt.Sprintf("relay%d", i+1), Role: story.Relay, State: story.Up, Bandwidth: uint64(1000 * (i + 1))}
		if i%4 == 0 {
			n.Flags = []string{"Exit"}
		}
		s.Node(n)
	}
	for i := range 9 {
		s.Node(story.Node{Name: fmt.Sprintf("authority%d", i+1), Role: story.Authority, State: story.Up})
	}
	for i := range 4 {
		s.Node(story.Node{Name: fmt.Sprintf("client%d", i+1), Role: story.Client, State: story.Up})
	}
	s.Node(story.Node{Name: "world", Role: story.Server, State: story.Up})
	w := open(t, s, story.Actions{})
	p := browser.Start(t).Open(t, w.Link(), looks[0])
	p.Until(t.Context(), `document.querySelectorAll("#graph .node").length === 134`)
	p.Until(t.Context(), apart)
	if c := p.Complaints(); len(c) > 0 {
		t.Errorf("the page complains: %q", c)
	}
}

// A report shows the same from a file, and its nodes and circuits have their stories.
func TestInABrowserAReportNeedsNothingElse(t *testing.T) {
	slow(t)
	s := network()
	s.End(after(10))
	s.Conclude(false, "local: FAILED (seed 1)\n  expected <b>more\n")
	name := filepath.Join(t.TempDir(), "report.html")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := Report(f, s); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	p := browser.Start(t).Open(t, (&url.URL{Scheme: "file", Path: name}).String(), looks[0])
	ctx := t.Context()
	p.Until(ctx, `document.querySelectorAll("#graph .node").length === 8 && document.querySelectorAll(".uplot canvas").length === 3`)
	p.Until(ctx, `document.querySelector("#about").textContent.includes("over after 0:10") && !document.querySelector("#tools button")`)
	p.Until(ctx, `document.querySelector("#outcome li").textContent === "expected <b>more" && document.querySelector("#outcome .bad")`)
	if err := p.Eval(`document.querySelector('[data-node="relay1"]').dispatchEvent(new MouseEvent("click", {bubbles: true}))`, nil); err != nil {
		t.Fatal(err)
	}
	p.Until(ctx, `document.querySelector("#story").textContent.includes("says <script>") && !document.querySelector("#story [data-key=kill]")`)
	p.Until(ctx, apart)
	if c := p.Complaints(); len(c) > 0 {
		t.Errorf("the page complains: %q", c)
	}
}
