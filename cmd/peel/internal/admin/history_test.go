package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// shown is a series as it is answered.
func shown(t *testing.T, p Past, metric, label string) string {
	t.Helper()
	for _, s := range p.Series {
		if s.Metric == metric && s.Value == label {
			b, err := json.Marshal(s.Values)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
	}
	return "none"
}

func TestATrackKeepsMeansOfItsSlots(t *testing.T) {
	for name, c := range map[string]struct {
		at   []int64 // and what is seen then is 1, 2, 3 and so on
		want string  // of slots of 10 s, 4 of them
	}{
		"nothing":                       {nil, "none"},
		"one":                           {[]int64{1000}, "[1]"},
		"one a slot":                    {[]int64{1000, 1010, 1020}, "[1,2,3]"},
		"several in a slot":             {[]int64{1000, 1003, 1009, 1010}, "[2,4]"},
		"a gap":                         {[]int64{1000, 1029}, "[1,null,2]"},
		"more than there is room for":   {[]int64{1000, 1010, 1020, 1030, 1040, 1050}, "[3,4,5,6]"},
		"a gap longer than the ring":    {[]int64{1000, 1010, 9000}, "[3]"},
		"the clock is set back a bit":   {[]int64{1000, 1010, 1020, 1010}, "[1,4]"},
		"the clock is set back by much": {[]int64{100000, 100010, 1000, 1010}, "[3,4]"},
		"just as long as the ring":      {[]int64{1000, 1030}, "[1,null,null,2]"},
		"one longer than the ring":      {[]int64{1000, 1040}, "[2]"},
	} {
		tr := newTrack(10*time.Second, 4)
		for i, at := range c.at {
			tr.add(at, map[string]float64{"peel_x": float64(i + 1)})
		}
		p := tr.past()
		if got := shown(t, p, "peel_x", ""); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if len(c.at) > 0 && p.Newest != c.at[len(c.at)-1]/10*10 {
			t.Errorf("%s: the newest is of %d", name, p.Newest)
		}
	}
}

func TestSeriesThatComeLateAreAsLongAsOthers(t *testing.T) {
	tr := newTrack(10*time.Second, 4)
	tr.add(1000, map[string]float64{"peel_a in": 1})
	tr.add(1010, map[string]float64{"peel_a in": 2, "peel_a out": 3})
	tr.add(1020, map[string]float64{"peel_a out": math.Inf(1)})
	p := tr.past()
	if in, out := shown(t, p, "peel_a", "in"), shown(t, p, "peel_a", "out"); in != "[1,2,null]" || out != "[null,3,null]" {
		t.Errorf("%s, %s", in, out)
	}
}

func TestTheHistoryHasABound(t *testing.T) {
	h := newHistory()
	for at := range int64(2000) {
		seen := map[string]float64{}
		for i := range 100 {
			seen[fmt.Sprintf("peel_x %d", i)] = 1
		}
		h.look(1000+10*at, seen, nil)
		if len(h.hour.rows) > mostSeries || len(h.days.rows) > mostSeries {
			t.Fatal("more series than there may be")
		}
	}
	hour, days := h.hour.past(), h.days.past()
	if len(hour.Series) != mostSeries || len(hour.Series[0].Values) != fineSlots || hour.Every != 10 {
		t.Errorf("an hour: %d series of %d", len(hour.Series), len(hour.Series[0].Values))
	}
	if len(days.Series) != mostSeries || len(days.Series[0].Values) != 20000/300+1 || days.Every != 300 {
		t.Errorf("days: %d series of %d", len(days.Series), len(days.Series[0].Values))
	}
}

func TestWhatOnlyRisesIsKeptAsARate(t *testing.T) {
	h := newHistory()
	for i, n := range []float64{1000, 1050, 1050, 20, 40} { // the node began anew, or counts from 0
		h.look(1000+10*int64(i), nil, map[string]float64{"peel_x_total": n})
	}
	if got := shown(t, h.hour.past(), "peel_x_total", ""); got != "[5,0,null,2]" {
		t.Error(got)
	}
}

func TestANodeTellsHowItWent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64 // read by another goroutine
		now := func() float64 { return float64(n.Load()) }
		s := server(t)
		s.Metric(
			Metric{Name: "peel_test_cells_total", Help: "Cells.", Rise: true, Round: 64, Keep: true, Value: now},
			Metric{Name: "peel_test_open", Help: "Open.", Round: 8, Keep: true, Label: "kind", Values: func() map[string]float64 { return map[string]float64{"circuits": now()} }},
			Metric{Name: "peel_test_secret", Help: "Not kept.", Value: func() float64 { return 7 }},
		)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan bool)
		go func() {
			s.remember(ctx)
			close(ended)
		}()
		time.Sleep(lookEvery / 2)
		for range 2 {
			n.Add(100)
			time.Sleep(lookEvery)
		}
		cancel()
		<-ended
		get := func(page string) string {
			w := httptest.NewRecorder()
			s.mux.ServeHTTP(w, httptest.NewRequest("GET", page, nil))
			return fmt.Sprint(w.Code, " ", w.Body)
		}
		for _, page := range []string{"/history", "/history?span=hour"} {
			text := get(page)
			for _, want := range []string{`"metric":"peel_test_cells_total","values":[null,6.4,12.8]`, `"metric":"peel_test_open","value":"circuits","values":[0,96,200]`,
				`"metric":"peel_goroutines"`} {
				if !strings.Contains(text, want) {
					t.Errorf("%s: no %s in %s", page, want, text)
				}
			}
			if strings.Contains(text, "secret") {
				t.Errorf("%s has what is not kept", page)
			}
		}
		if days := get("/history?span=days"); !strings.Contains(days, `"every":300`) {
			t.Error(days)
		}
		if bad := get("/history?span=ever"); !strings.HasPrefix(bad, "400 ") || !strings.Contains(bad, "hour or days") {
			t.Error(bad)
		}
	})
}
