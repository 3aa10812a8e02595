package villain

import (
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"peel/cell"
)

// record is a room for 46 cells of which n carry messages of two circuits, each told apart by its body.
func record(rng *rand.Rand, n int) []cell.Cell {
	room := make([]cell.Cell, 46)
	for i := range n {
		room[i].SetCirc(cell.CircID(1 + i/4%2))
		room[i].SetCommand(cell.CmdRelay)
		for j := range room[i].Body() {
			room[i].Body()[j] = byte(rng.Uint32())
		}
	}
	return room
}

// Each script changes what it says and nothing else, and an honest node nothing at all.
func TestScriptsDoWhatTheySay(t *testing.T) {
	for script, what := range map[string]func(before, after []cell.Cell) bool{
		"":      func(before, after []cell.Cell) bool { return slices.Equal(before, after) },
		"boast": func(before, after []cell.Cell) bool { return slices.Equal(before, after) },
		"claim": func(before, after []cell.Cell) bool { return slices.Equal(before, after) },
		"delay": func(before, after []cell.Cell) bool { return slices.Equal(before, after) },
		"tag": func(before, after []cell.Cell) bool {
			bits := 0
			for i := range before {
				for j := range before[i] {
					for x := before[i][j] ^ after[i][j]; x != 0; x &= x - 1 {
						bits++
					}
				}
			}
			return len(before) == len(after) && bits == 1
		},
		"drop":  func(before, after []cell.Cell) bool { return len(after) == len(before)-1 },
		"stall": func(_, after []cell.Cell) bool { return len(after) == 1 && after[0].Command() == cell.CmdPadding },
		"replay": func(before, after []cell.Cell) bool {
			return len(after) == len(before)+1 && slices.Equal(after[:len(before)], before)
		},
		"inject": func(before, after []cell.Cell) bool {
			return len(after) == len(before)+1 && !slices.Contains(before, after[len(before)]) && after[len(before)].Command() == cell.CmdRelay
		},
		"flood": func(before, after []cell.Cell) bool { return len(after) == 46 },
		"reorder": func(before, after []cell.Cell) bool {
			moved := 0
			for i := range before {
				if before[i] != after[i] {
					moved++
				}
			}
			return moved >= 2
		},
	} {
		rng := rand.New(rand.NewPCG(1, 1))
		var slept time.Duration
		m := NewMind(1, func(d time.Duration) { slept += d })
		write := m.Cells()
		m.Set(script)
		honest := slices.Contains([]string{"", "boast", "claim", "delay"}, script)
		changed, right := false, false
		for range 12 { // 20 cells each: the misdeeds come from the second or third on
			room := record(rng, seldom)
			before := slices.Clone(room[:seldom])
			n := write(room, seldom)
			if n < 1 || n > len(room) {
				t.Fatalf("%q: %d cells", script, n)
			}
			if !slices.Equal(before, room[:n]) {
				changed = true
				right = right || what(before, room[:n])
			}
		}
		if changed == honest || right == honest {
			t.Errorf("%q: it changed something: %v, and what it should: %v", script, changed, right)
		}
		if (slept > 0) != (script == "delay") {
			t.Errorf("%q slept %v", script, slept)
		}
		if did := m.Deeds.Load() > 0; did != (!honest || script == "delay") {
			t.Errorf("%q counts %d misdeeds", script, m.Deeds.Load())
		}
	}
}

// What builds circuits, and what is of the link alone, is let through.
func TestVillainsLeaveOtherCellsAlone(t *testing.T) {
	for _, script := range []string{"tag", "drop", "stall", "replay", "inject", "flood", "reorder"} {
		m := NewMind(1, nil)
		m.Set(script)
		write := m.Cells()
		for range 100 {
			room := make([]cell.Cell, 46)
			for i := range 3 {
				room[i].SetCirc(1)
				room[i].SetCommand(cell.CmdCreate)
			}
			before := slices.Clone(room[:3])
			if n := write(room, 3); !slices.Equal(before, room[:n]) {
				t.Errorf("%s changed what is no RELAY cell", script)
			}
		}
	}
}

func TestWhatVillainsHandOut(t *testing.T) {
	version := "first"
	m := NewMind(1, nil)
	h := m.Directory(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && (r.Header.Get("Accept-Encoding") != "" || r.Header.Get("If-None-Match") != "") && m.Script() != "" {
			t.Error("a list that is to be changed was asked for compressed, or only if it is new")
		}
		io.WriteString(w, version+r.Method+"\nvalid-until 2000-01-01T00:00:00Z\nbandwidth 100\nbandwidth 100\n")
	}))
	ask := func(method string, path ...string) string {
		w, r := httptest.NewRecorder(), httptest.NewRequest(method, "/peel/consensus"+strings.Join(path, ""), nil)
		r.Header.Set("Accept-Encoding", "gzip")
		r.Header.Set("If-None-Match", "\"this\"")
		h.ServeHTTP(w, r)
		list, rest, _ := strings.Cut(w.Body.String(), "\n")
		if m.Script() == "lie" {
			return list + rest
		}
		return list
	}
	if got := ask("GET"); got != "firstGET" {
		t.Errorf("an honest node says %q", got)
	}
	m.Set("stale")
	ask("GET")
	version = "second"
	if got := ask("GET"); got != "firstGET" {
		t.Errorf("stale: %q", got)
	}
	if got := ask("POST"); got != "secondPOST" {
		t.Errorf("stale, to who posts: %q", got)
	}
	if got := ask("GET", "/diff/0123"); got != "take the whole" {
		t.Errorf("stale, to who asks what has changed: %q", got)
	}
	m.Set("lie")
	lies := map[string]bool{}
	for range 6 {
		lies[ask("GET")] = true
	}
	for _, want := range []string{
		"secondGETvalid-until 2000-01-01T00:00:00Z\nbandwidth 9100\nbandwidth 100\n", "secondGETvalid-until 3000-01-01T00:00:00Z\nbandwidth 100\nbandwidth 100\n",
		"peel network status 1whatever\n",
	} {
		if !lies[want] || len(lies) != 3 {
			t.Errorf("lie: %q is none of %v", want, lies)
		}
	}
	m.Set("")
	if got := ask("GET"); got != "secondGET" {
		t.Errorf("honest again: %q", got)
	}
}

// A relay that claims offers much, and says that it carried as much; one that boasts only offers it.
func TestWhoClaimsSaysThatItCarriedMuch(t *testing.T) {
	for script, want := range map[string][2]uint64{"": {7, 5}, "tag": {7, 5}, "boast": {boast, 5}, "claim": {boast, boast}} {
		m := NewMind(1, nil)
		m.Set(script)
		if offer, carried := Offer(script, 7), m.Claim(5); offer != want[0] || carried != want[1] {
			t.Errorf("%q offers %d and says that it carried %d", script, offer, carried)
		}
	}
}
