package socks

import (
	"net"
	"net/netip"
)

// Rules are what holds for one listener. The zero value isolates by credentials, client and listener, and takes both names
// and addresses.
type Rules struct {
	// Group is what listeners have in common whose requests may share circuits; "" is a group of the listener's own.
	Group string
	// ShareUsers and ShareClients make requests of different credentials, or of different clients' addresses, share.
	ShareUsers, ShareClients bool
	// IsolateHosts and IsolatePorts keep requests for different hosts, or ports, apart.
	IsolateHosts, IsolatePorts bool
	// Safe refuses requests to connect to an address that the client did not get here: it must have looked up a name
	// outside the network.
	Safe bool
	// Extended gives clients the extended codes (ServiceNotFound and so on).
	Extended bool
	// Early tells applications that they are connected before they are, so that what they then send goes along with the request. A
	// connection that comes to nothing is reset, and nobody learns why.
	Early bool
}

// isolate completes the isolation of a request that came to a listener, named so, from a client.
func (r *Rules) isolate(req *Request, listener string, client net.Addr) {
	i := &req.Isolation
	if r.ShareUsers {
		i.Credentials = Credentials{}
	}
	if ap, err := netip.ParseAddrPort(client.String()); err == nil && !r.ShareClients {
		i.Client = ap.Addr().Unmap()
	}
	i.Listener = listener
	if r.Group != "" {
		i.Listener = "group " + r.Group
	}
	if r.IsolateHosts {
		i.Host = req.Host
	}
	if r.IsolatePorts {
		i.Port = req.Port
	}
}

// code is what the client is told instead of c.
func (r *Rules) code(c byte) byte {
	if r.Extended {
		return c
	}
	return standard(c)
}
