package client

import (
	"slices"
	"time"
)

const (
	portsFor  = time.Hour // a port is expected for so long after its last use
	portsMost = 8         // ports expected at a time
)

// ports are those that streams went to lately, with the last use: circuits for them are made ahead. At most portsMost.
type ports map[uint16]time.Time

// used notes a stream; the port used longest ago gives way.
func (p ports) used(port uint16, now time.Time) {
	if _, ok := p[port]; !ok && len(p) >= portsMost {
		oldest := port
		for q, t := range p {
			if oldest == port || t.Before(p[oldest]) {
				oldest = q
			}
		}
		delete(p, oldest)
	}
	p[port] = now
}

// expected are the ports to make circuits for, in order; what is old is forgotten.
func (p ports) expected(now time.Time) []uint16 {
	var list []uint16
	for port, t := range p {
		if now.Sub(t) >= portsFor {
			delete(p, port)
			continue
		}
		list = append(list, port)
	}
	slices.Sort(list)
	return list
}
