package story

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var begin = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

func after(s int) time.Time { return begin.Add(time.Duration(s) * time.Second) }

// small is a story with a client and four relays.
func small() *Story {
	s := New("local", "in one process", begin)
	s.Node(Node{Name: "client", Role: Client, State: Up})
	for i := range 4 {
		s.Node(Node{Name: fmt.Sprintf("relay%d", i+1), Role: Relay, State: Up, Flags: []string{"Guard"}})
	}
	return s
}

func circuitOf(t *testing.T, s *Story, key string) Circuit {
	t.Helper()
	for _, c := range s.Snapshot(0).Circuits {
		if c.Key == key {
			return c
		}
	}
	t.Fatalf("no circuit %s in the snapshot", key)
	return Circuit{}
}

func TestWhatIsToldIsInTheSnapshotAndInTheStoriesOfWhomItConcerns(t *testing.T) {
	s := small()
	path := []string{"relay1", "relay2", "relay3"}
	s.Circuit(after(1), "client", Circuit{ID: 7, Path: path, State: Building}, "is being built")
	s.Circuit(after(2), "client", Circuit{ID: 7, Path: path, State: Open, Purpose: "spare"}, "is open")
	s.Tell(Event{At: after(3), Node: "relay2", Kind: OfNode, Text: "was killed"})
	v := s.Snapshot(0)
	if len(v.Nodes) != 5 || v.Nodes[0].Name != "client" || v.Nodes[4].Name != "relay4" {
		t.Errorf("nodes: %v", v.Nodes)
	}
	if len(v.Events) != 3 || v.Events[2].Text != "was killed" || v.Events[2].Seq != 3 {
		t.Errorf("events: %v", v.Events)
	}
	if got := s.Snapshot(2).Events; len(got) != 1 || got[0].Seq != 3 {
		t.Errorf("after the second event there are %v", got)
	}
	if got := s.Snapshot(3).Events; len(got) != 0 {
		t.Errorf("after the last event there are %v", got)
	}
	want := []Link{{"client", "relay1"}, {"relay1", "relay2"}, {"relay2", "relay3"}}
	if !slices.Equal(v.Links, want) {
		t.Errorf("links: %v, want those of the circuit, %v", v.Links, want)
	}
	if l, ok := s.OfCircuit("client/7"); !ok || len(l.Lines) != 2 || l.Lines[1].Text != "is open" {
		t.Errorf("the circuit's story: %v %v", l, ok)
	}
	if l, ok := s.OfNode("relay2"); !ok || len(l.Lines) != 2 || l.Lines[0].Circuit != "client/7" || l.Lines[1].Text != "was killed" {
		t.Errorf("the relay's story: %v %v", l, ok)
	}
	if _, ok := s.OfNode("nobody"); ok {
		t.Error("nobody has a story")
	}
}

func TestACircuitIsOverWhenItIsMissingTwice(t *testing.T) {
	s := small()
	open := []Circuit{{ID: 1, Path: []string{"relay1"}, State: Open}, {ID: 2, Path: []string{"relay2"}, State: Open}}
	s.Circuits(after(1), "client", open)
	s.Circuits(after(2), "client", open[:1])
	if c := circuitOf(t, s, "client/2"); c.State != Open {
		t.Errorf("missing once, it is %s", c.State)
	}
	s.Circuits(after(3), "client", open)
	s.Circuits(after(4), "client", open[:1])
	s.Circuits(after(5), "client", open[:1])
	if c := circuitOf(t, s, "client/2"); c.State != Closed || c.Ended == nil || !c.Ended.Equal(after(5)) {
		t.Errorf("missing twice, it is %s", c.State)
	}
	if c := circuitOf(t, s, "client/1"); c.State != Open {
		t.Errorf("the other is %s", c.State)
	}
	s.Circuit(after(6), "client", Circuit{ID: 2, State: Closed, Why: "its link was lost"}, "is over")
	if c := circuitOf(t, s, "client/2"); c.Why != "its link was lost" {
		t.Errorf("why it ended, heard late: %q", c.Why)
	}
	s.Circuits(after(7), "client", open)
	if c := circuitOf(t, s, "client/2"); c.State != Closed {
		t.Error("a circuit that was over is open again")
	}
}

func TestRatesAreWhatCameBetweenTwoSamples(t *testing.T) {
	s := small()
	circuits := func(sent, got uint64) {
		s.Circuits(begin, "client", []Circuit{{ID: 1, State: Open, Path: []string{"relay1"}, Sent: sent, Received: got}})
	}
	circuits(10, 100)
	s.Carried("relay1", 1000)
	s.Sample(after(1))
	circuits(20, 300)
	s.Carried("relay1", 3000)
	s.Sample(after(3))
	v := s.Snapshot(0)
	if r := v.Nodes[1].Rate; r != 1000 {
		t.Errorf("the relay carries %v cells a second, want 1000", r)
	}
	if c := v.Circuits[0]; c.Out != 5 || c.In != 100 {
		t.Errorf("the circuit carries %v and %v cells a second, want 5 and 100", c.Out, c.In)
	}
	if got := v.Series.Cells; !slices.Equal(got, []float64{1000, 1000}) {
		t.Errorf("curve: %v", got)
	}
	s.Carried("relay1", 50) // it was started anew
	s.Sample(after(4))
	if r := s.Snapshot(0).Nodes[1].Rate; r != 50 {
		t.Errorf("after a restart the relay carries %v cells a second, want 50", r)
	}
	s.Sample(after(4)) // no time has passed
	if n := len(s.Snapshot(0).Series.T); n != 3 {
		t.Errorf("%d points, want 3", n)
	}
}

func TestFirstBytesAreAMedianAndNullWhereNoneCame(t *testing.T) {
	s := small()
	for _, ms := range []int{30, 10, 20} {
		s.Downloaded(Download{At: after(1), FirstByte: time.Duration(ms) * time.Millisecond})
	}
	s.Downloaded(Download{At: after(1), Err: "refused"})
	s.Sample(after(1))
	s.Sample(after(2))
	got, err := json.Marshal(s.Snapshot(0).Series)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"first_byte":[20,null]`, `"failed":[1,0]`} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
}

func TestTheCurvesOfALongRunStayShortAndCoverAllOfIt(t *testing.T) {
	s := small()
	const samples = 10_000
	for i := range samples {
		s.Carried("relay1", uint64(100*(i+1)))
		s.Downloaded(Download{FirstByte: 5 * time.Millisecond, Err: "late"})
		s.Sample(after(i + 1))
	}
	v := s.Snapshot(0).Series
	if n := len(v.T); n < mostPoints/2 || n > mostPoints {
		t.Fatalf("%d points, want %d to %d", n, mostPoints/2, mostPoints)
	}
	for _, n := range []int{len(v.Cells), len(v.In), len(v.Out), len(v.FirstByte), len(v.Failed)} {
		if n != len(v.T) {
			t.Fatalf("a curve of %d points beside %d times", n, len(v.T))
		}
	}
	failed := 0.0
	for i, c := range v.Cells {
		if c != 100 || *v.FirstByte[i] != 5 {
			t.Fatalf("point %d: %v cells a second, first byte %v", i, c, *v.FirstByte[i])
		}
		failed += v.Failed[i]
	}
	step := v.T[1] - v.T[0]
	if first, last := v.T[0], v.T[len(v.T)-1]; first > float64(after(0).Unix())+2*step || last < float64(after(samples).Unix())-2*step {
		t.Errorf("the curve goes from %v to %v", first, last)
	}
	if failed < samples-2*step || failed > samples {
		t.Errorf("%v failures in the curve, want about %d", failed, samples)
	}
}

func TestAStoryStaysWithinItsBounds(t *testing.T) {
	s := New("n", "g", begin)
	long := strings.Repeat("é", mostText)
	for i := range mostNodes + 10 {
		s.Node(Node{Name: fmt.Sprint("r", i)})
	}
	for i := range 3000 {
		s.Tell(Event{Node: "r1", Circuit: "c/1", Text: long})
		s.Circuit(begin, "c", Circuit{ID: uint64(i), State: Open}, "open")
		s.Link(fmt.Sprint(i), fmt.Sprint(i+1), true)
		s.Link(fmt.Sprint(i), fmt.Sprint(i+2), true)
		s.Link(fmt.Sprint(i), fmt.Sprint(i+3), true)
		s.Period(Period{ValidAfter: after(i)})
		s.Downloaded(Download{})
		s.Mark(Mark{Text: long})
	}
	v := s.Snapshot(0)
	for what, n := range map[string][2]int{
		"nodes": {len(v.Nodes), mostNodes}, "events": {len(v.Events), mostShown}, "kept events": {min(len(s.events), mostEvents), mostEvents}, "circuits": {len(v.Circuits), mostOpen},
		"links": {len(v.Links), mostLinks}, "periods": {len(v.Periods), mostPeriods}, "downloads": {len(v.Downloads), mostDownloads}, "marks": {len(v.Marks), mostMarks},
	} {
		if n[0] != n[1] {
			t.Errorf("%d %s, want the bound, %d", n[0], what, n[1])
		}
	}
	if n := len(s.events); n > 2*mostEvents {
		t.Errorf("%d events are kept", n)
	}
	l, _ := s.OfNode("r1")
	if len(l.Lines) != mostLines || len(l.Lines[0].Text) > mostText+len("…") || strings.ContainsRune(l.Lines[0].Text, '\uFFFD') {
		t.Errorf("%d lines of %d bytes", len(l.Lines), len(l.Lines[0].Text))
	}
	if p := v.Periods; !p[len(p)-1].ValidAfter.Equal(after(2999)) {
		t.Error("the newest period is not kept")
	}
	s.Circuits(after(1), "c", nil)
	s.Circuits(after(2), "c", nil)
	if n := len(s.Snapshot(0).Circuits); n != mostOver {
		t.Errorf("%d circuits that are over, want the bound, %d", n, mostOver)
	}
	s.Circuit(begin, "c", Circuit{ID: 99999, State: Open}, "open")
	circuitOf(t, s, "c/99999") // there is room again
}

func TestWeatherAndVillainsAreToldOnceAndMarked(t *testing.T) {
	s := small()
	s.Weather(after(1), "bad")
	s.Weather(after(2), "bad")
	s.Villain(after(3), "relay1", "tags cells")
	s.Villain(after(4), "relay1", "tags cells")
	s.Villain(after(5), "relay1", "")
	s.Villain(after(5), "nobody", "tags cells")
	v := s.Snapshot(0)
	if len(v.Marks) != 3 || len(v.Events) != 3 || v.Weather != "bad" || v.Nodes[1].Villain != "" {
		t.Errorf("marks %v, events %v", v.Marks, v.Events)
	}
}

// A snapshot is not changed by what comes after, and no method needs another's lock.
func TestManyTellWhileOthersLook(t *testing.T) {
	s := small()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				s.Circuits(after(i), "client", []Circuit{{ID: uint64(i/3 + g), State: Open, Path: []string{"relay1", "relay2"}}})
				s.Tell(Event{Node: "relay1", Text: "x"})
				s.Sample(after(i + 1))
				s.Change("relay2", func(n *Node) { n.Flags = append(n.Flags, "Fast") })
				s.Period(Period{ValidAfter: after(i), Votes: []string{"a"}})
			}
		})
		wg.Go(func() {
			for range 20 {
				v := s.Snapshot(0)
				if _, err := json.Marshal(v); err != nil {
					t.Error(err)
				}
				s.OfNode("relay1")
				s.OfCircuit("client/1")
			}
		})
	}
	wg.Wait()
}

func TestACircuitIsNotBuiltForEver(t *testing.T) {
	s := small()
	s.Circuit(after(0), "client", Circuit{ID: 1, State: Building}, "is being built")
	s.Sample(after(299))
	if c := circuitOf(t, s, "client/1"); c.State != Building {
		t.Errorf("soon it is %s", c.State)
	}
	s.Sample(after(301))
	if c := circuitOf(t, s, "client/1"); c.State != Failed {
		t.Errorf("after long it is %s", c.State)
	}
}

func TestActionsNameWhatThereIs(t *testing.T) {
	a := Actions{Kill: func(string) error { return nil }, SetWeather: func(string) error { return nil }}
	if got := a.Can(); !slices.Equal(got, []string{"kill", "weather"}) {
		t.Errorf("can %v", got)
	}
}

func TestHowANetworkIsTakenDownIsNoPartOfItsStory(t *testing.T) {
	s := small()
	s.Circuits(after(1), "client", []Circuit{{ID: 1, State: Open, Path: []string{"relay1"}}})
	s.End(after(2))
	s.State("relay1", Down)
	s.Circuit(after(3), "client", Circuit{ID: 1, State: Closed}, "is closed")
	s.Circuits(after(3), "client", nil)
	s.Circuits(after(4), "client", nil)
	s.Sample(after(4))
	v := s.Snapshot(0)
	if v.Nodes[1].State != Up || v.Circuits[0].State != Open || len(v.Events) != 0 || !v.Over || !v.Now.Equal(after(2)) {
		t.Errorf("%+v", v)
	}
}

// What came of a run is told when it is over, within bounds.
func TestWhatCameOfARunIsTold(t *testing.T) {
	s := New("local", "in a test", begin)
	if o := s.Snapshot(0).Outcome; o != nil {
		t.Errorf("before the end: %v", o)
	}
	s.End(after(1))
	s.Conclude(true, strings.Repeat("ä", mostOutcome))
	if o := s.Snapshot(0).Outcome; o == nil || !o.Well || len(o.Text) > mostOutcome+len("…") || !strings.HasSuffix(o.Text, "ä…") {
		t.Errorf("after it: %.80v", o)
	}
}
