package client_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"peel/client"
	"peel/directory"
	"peel/testnet"
)

// An http.Client whose requests go through the network. The network file comes from whoever runs the network.
func Example() {
	network, err := directory.ParseNetwork(networkFile())
	if err != nil {
		log.Fatal(err)
	}
	c, err := client.New(client.Config{Network: network})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()

	web := &http.Client{Transport: &http.Transport{DialContext: c.DialContext}}
	r, err := web.Get(page()) // waits until the client is ready
	if err != nil {
		log.Fatal(err)
	}
	io.Copy(os.Stdout, r.Body)
	r.Body.Close()

	cancel()
	fmt.Println("ended:", <-ended)
	// Output:
	// a page
	// ended: <nil>
}

// Two identities: no relay sees that their connections are of one person by their sharing a circuit.
func ExampleClient_Isolated() {
	c, stop := start(client.Config{})
	defer stop()
	ctx := context.Background()

	type identity struct{ name string } // a type of one's own is equal to nobody else's tokens
	for _, name := range []string{"work", "home", "work"} {
		conn, err := c.Isolated(identity{name}).DialContext(ctx, "tcp", host())
		if err != nil {
			log.Fatal(err)
		}
		defer conn.Close()
	}
	for _, circuit := range c.Circuits() {
		if circuit.Streams > 0 {
			fmt.Println("a circuit of", len(circuit.Path), "relays, carries:", circuit.Streams)
		}
	}
	// Unordered output:
	// a circuit of 3 relays, carries: 2
	// a circuit of 3 relays, carries: 1
}

// A client inside another program: it keeps its state in memory, writes no file, tells what it does, and is gone without a
// trace when its context ends. Without a folder each start chooses new guards, which is a risk for whoever starts often.
func Example_embedded() {
	network, err := directory.ParseNetwork(networkFile())
	if err != nil {
		log.Fatal(err)
	}
	ready := make(chan string, 1)
	c, err := client.New(client.Config{
		Network: network,
		Spare:   1,        // circuits kept ready
		Memory:  32 << 20, // bytes that may wait for the program to read them
		Events: func(e client.Event) { // one call at a time, on a goroutine of Run's
			if e.Kind == client.EventBootstrap && e.Progress.Percent == 100 {
				ready <- e.Progress.String()
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()

	select {
	case text := <-ready:
		fmt.Println(text)
	case <-ctx.Done():
		_, why := c.Bootstrap()
		log.Fatal("not ready: ", why)
	}
	cancel()
	fmt.Println("ended:", <-ended)
	// Output:
	// Bootstrapped 100 % (done): a circuit carries data
	// ended: <nil>
}

// A lookup that only an exit sees.
func ExampleClient_Resolve() {
	c, stop := start(client.Config{})
	defer stop()

	addrs, err := c.Resolve(context.Background(), "www.example.com")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(addrs)
	// Output:
	// [93.184.215.14]
}

// What is asked for from now on shares no circuit with what was before.
func ExampleClient_NewIdentity() {
	c, stop := start(client.Config{})
	defer stop()
	ctx := context.Background()

	conn, err := c.DialContext(ctx, "tcp", host())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	if err := c.NewIdentity(ctx); err != nil { // one soon after would wait for 10 seconds
		log.Fatal(err)
	}
	after, err := c.DialContext(ctx, "tcp", host())
	if err != nil {
		log.Fatal(err)
	}
	defer after.Close()
	for _, circuit := range c.Circuits() {
		if circuit.Streams > 0 {
			fmt.Println("streams:", circuit.Streams, "takes more:", !circuit.Closing)
		}
	}
	// Unordered output:
	// streams: 1 takes more: false
	// streams: 1 takes more: true
}

// A port for other programs, which need not know more than SOCKS or HTTP proxies.
func ExampleClient_SOCKSServer() {
	c, stop := start(client.Config{})
	defer stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- c.SOCKSServer(nil).Serve(ctx, l) }()

	// Another program, with ALL_PROXY set to socks5h:// and this address, or:
	proxy := http.ProxyURL(&url.URL{Scheme: "socks5h", Host: l.Addr().String()})
	curl := &http.Client{Transport: &http.Transport{Proxy: proxy}}
	r, err := curl.Get(page())
	if err != nil {
		log.Fatal(err)
	}
	io.Copy(os.Stdout, r.Body)
	r.Body.Close()

	cancel()
	fmt.Println("ended:", <-served)
	// Output:
	// a page
	// ended: <nil>
}

// What follows is the small network, on this machine, in which the examples run.

// start makes a client and runs it until stop is called.
func start(cfg client.Config) (c *client.Client, stop func()) {
	network, err := directory.ParseNetwork(networkFile())
	if err != nil {
		log.Fatal(err)
	}
	cfg.Network = network
	if c, err = client.New(cfg); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.Run(ctx); err != nil {
			log.Print(err)
		}
	})
	return c, func() { cancel(); running.Wait() }
}

// A place is a network and a web server beyond it.
type place struct {
	net  *testnet.Net
	web  *httptest.Server
	stop func()
}

// there is nothing before the first example asks for it.
var there *place

var around = sync.OnceValue(func() *place {
	n, err := testnet.New(testnet.Config{Size: testnet.Size{Authorities: 1, Relays: 4, Exits: 2}, Resolver: names{}})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := n.Run(ctx); err != nil {
			log.Print(err)
		}
	})
	there = &place{net: n, stop: func() { cancel(); running.Wait() }}
	there.web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "a page\n") }))
	return there
})

func TestMain(m *testing.M) {
	code := m.Run()
	if there != nil {
		there.web.Close()
		there.stop()
	}
	os.Exit(code)
}

func networkFile() []byte {
	text, err := around().net.Layout().Network.Encode()
	if err != nil {
		log.Fatal(err)
	}
	return text
}

func page() string { return around().web.URL }
func host() string { return around().web.Listener.Addr().String() }

// names are those that exits know.
type names struct{}

func (names) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("93.184.215.14")}, nil
}

func (names) LookupAddr(context.Context, string) ([]string, error) { return nil, nil }
