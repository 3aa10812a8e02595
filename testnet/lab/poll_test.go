package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"peel/directory"
	"peel/testnet/plan"
	"peel/testnet/story"
	"peel/testnet/villain"
)

// asked is a lab whose nodes are processes as far as it can tell: relay1 to relay4 and client1, which answer what a func says.
func asked(t *testing.T, answer func(ctx context.Context, name, page string) ([]byte, error)) *Lab {
	t.Helper()
	p := plan.Default()
	l := &Lab{plan: p, ground: Apart(p), story: story.New("asked", "as processes", time.Now()), byName: map[string]*node{}, ctx: t.Context()}
	l.network, l.result.seen = new(directory.Network), map[string]string{}
	l.cfg.Progress = func(string) {}
	l.cfg.Processes = &Processes{Ask: func(ctx context.Context, dir, page string, most int64) ([]byte, error) {
		text, err := answer(ctx, filepath.Base(dir), page)
		if int64(len(text)) > most {
			return nil, errors.New("it is too long")
		}
		return text, err
	}}
	dir := t.TempDir()
	process := func(name, role string) *program {
		l.story.Node(story.Node{Name: name, Role: role, State: story.Up})
		return &program{lab: l, name: name, dir: filepath.Join(dir, name), on: Machine{Name: name, Role: role}, cmd: &exec.Cmd{}}
	}
	for i := range 4 {
		n := &node{lab: l, name: fmt.Sprintf("relay%d", i+1), role: roleRelay, mind: villain.NewMind(1, time.Sleep)}
		n.id[0] = byte(i)
		n.program = process(n.name, roleRelay)
		l.nodes, l.byName[n.name] = append(l.nodes, n), n
	}
	d := &door{program: process("client1", roleClient), told: map[uint64]bool{}}
	l.doors, l.clients, l.shown = []*door{d}, []user{d}, make([]*directory.Consensus, 1)
	return l
}

func (l *Lab) stateOf(name string) string {
	for _, n := range l.story.Snapshot(0).Nodes {
		if n.Name == name {
			return n.State
		}
	}
	return ""
}

const wayOf3 = `{"circuits":[{"id":%d,"purpose":"streams","streams":2,"cells_sent":%d,"cells_received":%d,"path":[{"nickname":"relay1"},{"nickname":"relay2"},{"nickname":"relay3"}]}]}`

// What a client that is a process says of its circuits is shown: their relays, their streams, and what they carry, a second.
func TestCircuitsOfAClientThatIsAProcessAreShownWithWhatTheyCarry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, id := time.Now(), 7
		l := asked(t, func(_ context.Context, _, page string) ([]byte, error) {
			s := int(time.Since(begun) / time.Second)
			switch page {
			case "/circuits":
				return fmt.Appendf(nil, wayOf3, id, 10*s, 500*s), nil
			case "/metrics":
				return fmt.Appendf(nil, "peel_relay_cells_total %d\n", 1024*s), nil
			}
			return []byte(`{"use":{"asked_again":3}}`), nil
		})
		defer l.running.Wait()
		for range 3 {
			time.Sleep(time.Second)
			l.look(lookTime)
		}
		v := l.story.Snapshot(0)
		if len(v.Circuits) != 1 {
			t.Fatalf("%d circuits are shown", len(v.Circuits))
		}
		c := v.Circuits[0]
		if c.Client != "client1" || c.ID != 7 || !slices.Equal(c.Path, []string{"relay1", "relay2", "relay3"}) || c.Streams != 2 || c.Received != 1500 || c.In != 500 || c.Out != 10 {
			t.Errorf("%+v", c)
		}
		if in := v.Series.In; in[2] != 500*1382 || v.Series.Cells[2] != 4*1024 {
			t.Errorf("the curves have %v bytes to clients, %v cells", in, v.Series.Cells)
		}
		if l.doors[0].Again() != 3 {
			t.Error("what it asked for again is not counted")
		}
		id = 8
		l.look(lookTime)
		v = l.story.Snapshot(0)
		if len(v.Circuits) != 2 || v.Circuits[0].State != story.Closed && v.Circuits[1].State != story.Closed || len(v.Events) != 3 {
			t.Errorf("after another took its place: %+v, %+v", v.Circuits, v.Events)
		}
	})
}

// One process that is slow, gone, or talks nonsense holds up nothing, is said to be silent, and is up again when it answers.
func TestAProcessThatDoesNotAnswerHoldsUpNobody(t *testing.T) {
	for name, bad := range map[string]func(ctx context.Context) ([]byte, error){
		"slow": func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() },
		"gone": func(context.Context) ([]byte, error) { return nil, errors.New("nobody answers there") },
		"mad":  func(context.Context) ([]byte, error) { return []byte("{\x00peel_relay_cells_total"), nil },
		"huge": func(context.Context) ([]byte, error) {
			return bytes.Repeat([]byte("peel_relay_cells_total 9\n"), 1<<18), nil
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			ill, begun := false, time.Now()
			l := asked(t, func(ctx context.Context, who, page string) ([]byte, error) {
				mu.Lock()
				now := ill && who != "relay1"
				mu.Unlock()
				switch {
				case now:
					return bad(ctx)
				case page == "/metrics":
					return fmt.Appendf(nil, "peel_relay_cells_total %d\n", int(time.Since(begun)/time.Second)), nil
				case page == "/circuits":
					return fmt.Appendf(nil, wayOf3, 7, 1, 1), nil
				}
				return []byte("{}"), nil
			})
			defer l.running.Wait()
			rounds := func(n int, then bool) {
				for range n {
					at := time.Now()
					l.look(lookTime)
					if took := time.Since(at); took > lookTime {
						t.Errorf("%s: a look took %v", name, took)
					}
					time.Sleep(time.Until(at.Add(time.Second)))
				}
				mu.Lock()
				ill = then
				mu.Unlock()
			}
			rounds(2, true)
			rounds(14, false)
			if got := l.byName["relay1"].counted().cells; got < 6 {
				t.Errorf("%s: of the one that answers %d cells are known", name, got)
			}
			if got := l.byName["relay2"].counted().cells; got != 1 {
				t.Errorf("%s: of one that does not, %d cells are known", name, got)
			}
			for _, who := range []string{"relay2", "client1"} {
				if got := l.stateOf(who); got != story.Silent {
					t.Errorf("%s: %s is %s", name, who, got)
				}
			}
			if got := l.stateOf("relay1"); got != story.Up {
				t.Errorf("%s: relay1 is %s", name, got)
			}
			rounds(4, false)
			if got := l.stateOf("relay2"); got != story.Up {
				t.Errorf("%s: when it answers again it is %s", name, got)
			}
			told := 0
			for _, e := range l.story.Snapshot(0).Events {
				if e.Node == "relay2" && strings.Contains(e.Text, "how it is") {
					told++
				}
			}
			if told != 2 {
				t.Errorf("%s: it was told %d times, want once that it is silent and once that it is not", name, told)
			}
		})
	}
}

// Circuits that cannot be are not shown, whatever a client says.
func TestCircuitsThatCannotBeAreNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hop := `{"nickname":"relay1"},{"nickname":"relay2"}`
		one := func(id int, path string) string {
			return fmt.Sprintf(`{"id":%d,"age_seconds":-9000,"purpose":%q,"streams":-1,"path":[%s]}`, id, "a"+strings.Repeat("é", 500), path)
		}
		all := []string{one(1, ""), one(2, hop+`,{"nickname":"nobody"}`), one(3, hop), one(3, hop)}
		l := asked(t, func(_ context.Context, _, page string) ([]byte, error) {
			if page == "/circuits" {
				return []byte(`{"circuits":[` + strings.Join(all, ",") + `]}`), nil
			}
			if page == "/metrics" {
				return []byte("peel_up 1\n"), nil
			}
			return []byte("{}"), nil
		})
		defer l.running.Wait()
		l.look(lookTime)
		v := l.story.Snapshot(0)
		if len(v.Circuits) != 1 || v.Circuits[0].ID != 3 || v.Circuits[0].Streams != 0 || len(v.Circuits[0].Purpose) > 100 || !utf8.ValidString(v.Circuits[0].Purpose) {
			t.Errorf("%+v", v.Circuits)
		}
		all = all[:0]
		for i := range 2 * mostListed {
			all = append(all, one(i, hop))
		}
		l.look(lookTime)
		if n := len(l.story.Snapshot(0).Circuits); n == 0 || n > mostListed+64 {
			t.Errorf("of %d circuits %d are shown", len(all), n)
		}
	})
}

// A circuit of a client that has too many to list is told to be closed when it is, and not when others are listed instead.
func TestACircuitThatIsNoLongerListedIsNotTakenForClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, last := 0, mostListed
		l := asked(t, func(_ context.Context, _, page string) ([]byte, error) {
			if page != "/circuits" {
				return []byte("{}\npeel_up 1\n")[:map[string]int{"/status": 2, "/metrics": 12}[page]], nil
			}
			var all []string
			for id := range last {
				if id = last - 1 - id; id >= first {
					all = append(all, fmt.Sprintf(`{"id":%d,"path":[{"nickname":"relay1"}]}`, id))
				}
			}
			return []byte(`{"circuits":[` + strings.Join(all, ",") + `]}`), nil
		})
		defer l.running.Wait()
		closed := func() (ids []string) {
			l.look(lookTime)
			for _, e := range l.story.Snapshot(0).Events {
				if id, ok := strings.CutSuffix(e.Text, " is closed"); ok {
					ids = append(ids, strings.TrimPrefix(id, "circuit "))
				}
			}
			return ids
		}
		closed()
		last += 9 // which are listed instead of 0 to 8
		if got := closed(); len(got) > 0 {
			t.Errorf("%d are said to be closed, and are open", len(got))
		}
		first = 2
		if got := closed(); !slices.Equal(slices.Sorted(slices.Values(got)), []string{"0", "1"}) {
			t.Errorf("%d are said to be closed, want 0 and 1: %q", len(got), got[:min(len(got), 5)])
		}
	})
}

// What happens in the last second counts: who is being asked when a run ends is asked again.
func TestWhatHappensWhileANodeIsAskedIsSeenAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		l := asked(t, func(_ context.Context, who, page string) ([]byte, error) {
			text := []byte("peel_relay_panics_total 0\n")
			if time.Since(begun) >= lookTime {
				text = []byte("peel_relay_panics_total 1\n")
			}
			if page != "/metrics" {
				return []byte("{}"), nil
			}
			if who == "relay2" {
				time.Sleep(2 * lookTime)
			}
			return text, nil
		})
		defer l.running.Wait()
		l.look(lookTime)
		l.collect()
		if got := l.result.Broken; !slices.ContainsFunc(got, func(b Broken) bool { return strings.Contains(b.Text, "relay2: 1 times") }) {
			t.Errorf("broken: %v", got)
		}
	})
}

// The consensus in a node's folder is read to its bound, and only if the node answers.
func TestWhatIsInANodesFolderIsReadWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ill := true
		l := asked(t, func(_ context.Context, who, page string) ([]byte, error) {
			if ill || page != "/metrics" {
				return nil, errors.New("nobody answers there")
			}
			return []byte("peel_up 1\n"), nil
		})
		defer l.running.Wait()
		file := filepath.Join(l.byName["relay1"].program.dir, "state", "consensus")
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, 1<<40); err != nil { // far more than there is memory
			t.Skip(err)
		}
		if l.look(lookTime); len(l.result.Broken) > 0 {
			t.Errorf("of one that does not answer: %v", l.result.Broken)
		}
		ill = false
		if l.look(lookTime); len(l.result.Broken) != 1 {
			t.Errorf("a consensus of a terabyte: %v", l.result.Broken)
		}
	})
}
