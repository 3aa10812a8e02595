package testnet

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// A connection through a whole network, from a client to a host, keeps what net.Conn promises.
func TestAConnectionThroughANetworkIsANetConn(t *testing.T) {
	n := share(t)
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, nil, err
		}
		defer l.Close()
		c, err := n.Client().DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			return nil, nil, nil, err
		}
		host, err := l.Accept()
		if err != nil {
			c.Close()
			return nil, nil, nil, err
		}
		return c, host, func() { c.Close(); host.Close() }, nil
	})
}

// What programs expect of net/http and crypto/tls holds through a network: connections are used again, also by HTTP/2; a request that is cancelled ends at
// the host; an answer that is cut off is no whole one; a deadline that has passed stops a read and no more; and what is closed is closed at the host.
func TestTheStandardLibraryThroughANetwork(t *testing.T) {
	n := share(t)
	begun, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })
	mux.HandleFunc("/waits", func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	})
	mux.HandleFunc("/breaks", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.Write(make([]byte, 10))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			s := httptest.NewUnstartedServer(mux)
			s.EnableHTTP2 = proto == "HTTP/2.0"
			var open atomic.Int64
			s.Listener = &counted{s.Listener, &open}
			s.StartTLS()
			defer s.Close()
			config := s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			config.ServerName = "example.com"
			tr := &http.Transport{DialContext: n.Client().DialContext, TLSClientConfig: config, ForceAttemptHTTP2: s.EnableHTTP2}
			c := &http.Client{Transport: tr}
			reused := false
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
			get := func(ctx context.Context, path string) (string, error) {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, nil)
				if err != nil {
					return "", err
				}
				r, err := c.Do(req)
				if err != nil {
					return "", err
				}
				defer r.Body.Close()
				text, err := io.ReadAll(r.Body)
				return string(text), err
			}
			for i := range 3 {
				if got, err := get(ctx, "/"); err != nil || got != proto || reused != (i > 0) {
					t.Errorf("request %d: %q, %v; on a connection that was used: %v", i, got, err, reused)
				}
			}
			if _, err := get(ctx, "/breaks"); err == nil || proto == "HTTP/1.1" && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("an answer that is cut off: %v", err)
			}
			short, cancel := context.WithCancel(ctx)
			go func() {
				<-begun
				cancel()
			}()
			if _, err := get(short, "/waits"); !errors.Is(err, context.Canceled) {
				t.Fatalf("cancelled: %v", err)
			}
			<-ended
			tr.CloseIdleConnections()
			until(t, "no connection is open at the host", func() bool { return open.Load() == 0 })

			plain, err := n.Client().DialContext(t.Context(), "tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer plain.Close()
			config = config.Clone()
			config.NextProtos = nil
			over := tls.Client(plain, config)
			if err := over.HandshakeContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			over.SetReadDeadline(time.Unix(1, 0))
			if _, err := over.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a deadline that has passed: %v", err)
			}
			over.SetReadDeadline(time.Time{})
			io.WriteString(over, "GET / HTTP/1.0\r\n\r\n")
			if text, err := io.ReadAll(over); err != nil || len(text) == 0 {
				t.Errorf("after that: %q, %v", text, err)
			}
		})
	}
}
