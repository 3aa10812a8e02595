package exit

import (
	"container/list"
	"net"
	"net/netip"
	"sync"

	"peel/directory"
)

// visitors are the connections of who reads the notice. Whoever has something to ask does so at once, so when all places are taken, those
// who have not asked make room.
type visitors struct {
	mu   sync.Mutex
	here list.List // of *visitor, in the order in which they came; noticeConns at most
}

// visitor is a connection that gives its place back when it is closed.
type visitor struct {
	net.Conn
	all   *visitors
	from  netip.Prefix  // an IPv4 address or an IPv6 /64; invalid: it is not known
	place *list.Element // nil: it has none any more; guarded by all.mu, as asked
	asked bool          // a whole request has come
}

// enter gives a connection a place. If there is none, the address that has most loses one: its oldest that has not asked, else its oldest.
func (v *visitors) enter(c net.Conn) *visitor {
	n := &visitor{Conn: c, all: v, from: sourceOf(c.RemoteAddr())}
	v.mu.Lock()
	var shed *visitor
	if v.here.Len() >= noticeConns {
		shed = v.victim()
		v.drop(shed)
	}
	n.place = v.here.PushBack(n)
	v.mu.Unlock()
	if shed != nil {
		shed.Conn.Close()
	}
	return n
}

// victim is whose place another gets. The caller holds mu, and there are some.
func (v *visitors) victim() (worst *visitor) {
	of := make(map[netip.Prefix]int)
	most := 0
	for e := v.here.Front(); e != nil; e = e.Next() {
		from := e.Value.(*visitor).from
		of[from]++
		most = max(most, of[from])
	}
	for e := v.here.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*visitor); of[c.from] == most && (worst == nil || worst.asked && !c.asked) {
			worst = c
		}
	}
	return worst
}

// drop takes a connection's place away. The caller holds mu.
func (v *visitors) drop(c *visitor) {
	if c.place != nil {
		v.here.Remove(c.place)
		c.place = nil
	}
}

// asked notes that a connection has a request.
func (v *visitors) asked(c *visitor) {
	v.mu.Lock()
	c.asked = true
	v.mu.Unlock()
}

// Close gives the place back.
func (c *visitor) Close() error {
	err := c.Conn.Close()
	c.all.mu.Lock()
	c.all.drop(c)
	c.all.mu.Unlock()
	return err
}

// CloseWrite says that no more comes, where the connection can.
func (c *visitor) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// closeAll closes every connection that has a place.
func (v *visitors) closeAll() {
	v.mu.Lock()
	var all []*visitor
	for e := v.here.Front(); e != nil; e = e.Next() {
		all = append(all, e.Value.(*visitor))
	}
	v.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
}

// sourceOf is the IPv4 address, or the IPv6 network of one house, that somebody calls from.
func sourceOf(a net.Addr) netip.Prefix {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	return directory.SourceOf(t.AddrPort().Addr().Unmap().WithZone(""))
}
