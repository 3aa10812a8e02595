package testnet

import (
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"peel/client"
	"peel/testnet/story"
)

// until waits until something is so, for as long as some periods of a network take on a busy machine.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(4 * time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after four minutes it is not so that %s", what)
		}
	}
}

func nodeOf(t *testing.T, s *story.Story, name string) story.Node {
	t.Helper()
	for _, n := range s.Snapshot(0).Nodes {
		if n.Name == name {
			return n
		}
	}
	t.Fatalf("no node %s in the story", name)
	return story.Node{}
}

func told(s *story.Story, node, text string) bool {
	return slices.ContainsFunc(s.Snapshot(0).Events, func(e story.Event) bool { return e.Node == node && e.Text == text })
}

// echoes answers what it is sent, at an address that it returns.
func echoes(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func TestTheStoryOfANetworkInThisProcess(t *testing.T) {
	beside(t)
	cfg := small
	cfg.Story, cfg.Dir = story.New("local", "in one process", time.Now()), t.TempDir()
	n := run(t, cfg)
	s := n.cfg.Story

	var v story.Snapshot
	until(t, "all nodes have flags, a period has a consensus and circuits of three are open", func() bool {
		v = s.Snapshot(0)
		open, flagged, made := 0, 0, false
		for _, c := range v.Circuits {
			if c.State == story.Open && len(c.Path) == 3 && c.Sent > 0 {
				open++
			}
		}
		for _, x := range v.Nodes {
			if slices.Contains(x.Flags, "Running") && x.Cells > 0 {
				flagged++
			}
		}
		for _, p := range v.Periods {
			made = made || p.Made() && p.Of == 4 && len(p.Votes) >= p.Needed
		}
		return open > 0 && flagged > 0 && made
	})
	if want := cfg.Authorities + cfg.Relays + 2; len(v.Nodes) != want {
		t.Errorf("%d nodes, want %d", len(v.Nodes), want)
	}

	// A circuit carries, and its relay is frozen, restored, killed and restored.
	c, err := n.Client().DialContext(t.Context(), "tcp", echoes(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	middle := client.PathOf(c)[1].Nickname
	echo := func() error {
		_, err := c.Write([]byte("x"))
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, 1))
		}
		return err
	}
	if err := echo(); err != nil {
		t.Fatal(err)
	}
	a := n.Actions()
	if got := a.Can(); !slices.Equal(got, []string{"freeze", "kill", "restore"}) {
		t.Errorf("can %v", got)
	}
	if err := a.Freeze(middle); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if err := echo(); err == nil {
		t.Error("a frozen relay carried an echo")
	}
	if st := nodeOf(t, s, middle).State; st != story.Frozen {
		t.Errorf("frozen, %s is %s", middle, st)
	}
	if err := a.Restore(middle); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("after it is restored the echo does not come: %v", err)
	}
	if err := a.Kill(middle); err != nil {
		t.Fatal(err)
	}
	until(t, "the circuit ends with its relay", func() bool { return echo() != nil })
	if st := nodeOf(t, s, middle).State; st != story.Down || !told(s, middle, "was killed") {
		t.Errorf("killed, %s is %s", middle, st)
	}
	if err := a.Freeze(middle); err == nil {
		t.Error("what was killed was frozen")
	}
	if err := a.Restore(middle); err != nil {
		t.Fatal(err)
	}
	nd, err := n.node(middle)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the relay answers again", func() bool {
		c, err := net.Dial("tcp", nd.addr.String())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	if err := a.Kill("client"); err == nil {
		t.Error("the client was killed")
	}
	if err := a.Kill("nobody"); err == nil {
		t.Error("nobody was killed")
	}

	// The end comes while a node is frozen.
	if err := a.Freeze(n.layout.Relays[0].Nickname); err != nil {
		t.Fatal(err)
	}
}

// An authority that was killed votes again, and is not seen to vote twice.
func TestAnAuthorityThatWasKilledVotesAgain(t *testing.T) {
	if os.Getenv("PEEL_SLOW") == "" {
		t.Skip("waits for some periods of the directory: set PEEL_SLOW=1 to run it")
	}
	cfg := small
	cfg.Story, cfg.Dir = story.New("local", "in one process", time.Now()), t.TempDir()
	n := run(t, cfg)
	s := n.cfg.Story
	a := n.Actions()
	victim := n.layout.Authorities[0].Nickname
	if err := a.Kill(victim); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	if err := a.Restore(victim); err != nil {
		t.Fatal(err)
	}
	until(t, "the authority signs again", func() bool {
		for _, p := range s.Snapshot(0).Periods {
			if len(p.Twice) > 0 {
				t.Fatalf("%v voted twice", p.Twice)
			}
			if p.ValidAfter.After(killed) && slices.Contains(p.Signatures, victim) {
				return true
			}
		}
		return false
	})
}

func TestAnAuthorityThatKeepsNothingIsNotStartedAgain(t *testing.T) {
	n, err := New(small)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range n.listeners {
		l.Close()
	}
	if err := n.Restore(n.layout.Authorities[0].Nickname); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("it may vote twice in a period: %v", err)
	}
	doesNotRun(t, n)
}
