package client

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Twenty applications, each with a token of its own, make connections at the same time and later. No exit sees what two of
// them ask for on one circuit.
func TestNoCircuitServesTwoTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{})
		const tokens, dials = 20, 5
		var wg sync.WaitGroup
		for token := range tokens {
			view := c.Isolated(fmt.Sprint("token ", token))
			for i := range dials {
				wg.Go(func() {
					time.Sleep(time.Duration(i/2) * time.Second)
					if err := dialAndEcho(view, fmt.Sprintf("app-%d.example:443", token)); err != nil {
						t.Errorf("token %d: %v", token, err)
					}
				})
			}
		}
		wg.Wait()
		asked := w.asked()
		total := 0
		for _, hosts := range asked {
			total += len(hosts)
			for _, h := range hosts {
				if h != hosts[0] {
					t.Errorf("%s and %s on one circuit", hosts[0], h)
				}
			}
		}
		if len(asked) != tokens || total != tokens*dials {
			t.Errorf("%d circuits for %d tokens, %d requests instead of %d", len(asked), tokens, total, tokens*dials)
		}
	})
}

// A circuit that failed one token's stream, or that its owner does not use, is still nobody else's.
func TestCircuitStaysItsTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{Spare: 1})
		a, b := c.Isolated("a"), c.Isolated("b")
		for _, host := range []string{"end-5.example", "end-10.example", "end-3.example", "a.example"} {
			a.DialContext(t.Context(), "tcp", host+":443")
			if _, err := b.Resolve(t.Context(), "b.example"); err != nil {
				t.Fatal(err)
			}
			if err := dialAndEcho(c, "own.example:80"); err != nil {
				t.Fatal(err)
			}
		}
		for _, hosts := range w.asked() {
			all := strings.Join(hosts, " ")
			of := 0
			for _, who := range []string{"b.example", "own.example", "end-"} {
				if strings.Contains(all, who) || who == "end-" && strings.HasPrefix(all, "a.example") {
					of++
				}
			}
			if of != 1 {
				t.Errorf("on one circuit: %s", all)
			}
		}
	})
}

func TestEqualTokensShareAndNilIsTheClientsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type token struct{ user, password string }
		c := newWorld(t, 12).ready(Config{})
		way := func(c *Client) string {
			conn := mustDial(t, c, "www.example:443")
			defer conn.Close()
			return fmt.Sprintf("%p", conn.(*Conn).Path[0]) + way(PathOf(conn))
		}
		one, same := c.Isolated(token{"a", "b"}), c.Isolated(token{"a", "b"})
		if way(one) != way(same) {
			t.Error("equal tokens do not share a circuit")
		}
		if way(c.Isolated(nil)) != way(c) || way(c.Isolated("x").Isolated(nil)) != way(c) {
			t.Error("the token nil is not the client's own")
		}
		time.Sleep(time.Second)
		n := 0
		for _, i := range c.Circuits() {
			if i.Used {
				n++
			}
		}
		if n != 2 {
			t.Errorf("%d circuits for two tokens", n)
		}
		c.Isolated(1).DialContext(t.Context(), "tcp", "www.example:443")
		c.Isolated(int8(1)).DialContext(t.Context(), "tcp", "www.example:443")
		if n := len(c.Circuits()); n < 4 {
			t.Errorf("%d circuits: tokens of two types share one", n)
		}
	})
}

// A token that cannot be compared would isolate nothing or panic; one that is not equal to itself would take a circuit for
// each stream.
func TestTokensThatAreNoneAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newWorld(t, 6).ready(Config{})
		for _, token := range []any{
			[]byte("x"), map[string]int{}, func() {}, math.NaN(), struct{ a any }{[]int{1}}, [1]float64{math.NaN()},
		} {
			v := c.Isolated(token)
			_, err := v.DialContext(t.Context(), "tcp", "www.example:443")
			_, err2 := v.Resolve(t.Context(), "www.example")
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%T", token)) || !errors.Is(err2, err) {
				t.Errorf("%T: %v, %v", token, err, err2)
			}
		}
		for _, token := range []any{"x", 7, struct{ a any }{"x"}, new(int), [2]string{}, make(chan int)} {
			if err := dialAndEcho(c.Isolated(token), "www.example:443"); err != nil {
				t.Errorf("%T: %v", token, err)
			}
		}
	})
}
