package client_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

	"peel/client"
	"peel/directory"
)

// load reads a network file.
func load() *directory.Network {
	text, err := os.ReadFile("network.toml")
	if err != nil {
		log.Fatal(err)
	}
	n, err := directory.ParseNetwork(text)
	if err != nil {
		log.Fatal(err)
	}
	return n
}

// An http.Client whose requests go through the network.
func Example() {
	c, err := client.New(client.Config{
		Network:  load(),
		Progress: func(p client.Progress) { fmt.Println(p) },
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()

	web := &http.Client{Transport: &http.Transport{DialContext: c.DialContext}}
	r, err := web.Get("http://www.example.com/")
	if err != nil {
		log.Fatal(err)
	}
	io.Copy(os.Stdout, r.Body)
	r.Body.Close()

	cancel()
	if err := <-ended; err != nil {
		log.Fatal(err)
	}
}

// Two identities: no relay sees that their connections are of one person by their sharing a circuit.
func ExampleClient_Isolated() {
	c, err := client.New(client.Config{Network: load()})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go c.Run(ctx)

	type identity struct{ name string } // a type of one's own is equal to nobody else's tokens
	for _, name := range []string{"work", "home"} {
		conn, err := c.Isolated(identity{name}).DialContext(ctx, "tcp", "www.example.com:443")
		if err != nil {
			log.Fatal(err)
		}
		for _, relay := range client.PathOf(conn) {
			fmt.Println(name, relay.Nickname)
		}
		conn.Close()
	}
}

// A lookup that only an exit sees.
func ExampleClient_Resolve() {
	c, err := client.New(client.Config{Network: load()})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go c.Run(ctx)

	addrs, err := c.Resolve(ctx, "www.example.com")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(addrs)
}
