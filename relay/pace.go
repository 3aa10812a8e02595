package relay

import "time"

const (
	leastShare = 0.2                    // of a worker's time that key exchanges get, however much else there is to do
	paceLook   = 100 * time.Millisecond // between two looks at how much that is
	cellPart   = 56                     // cells that cost as much as a key exchange
)

// A pace keeps one worker of key exchanges from taking the cores from the cells of circuits: the more cells there are, the longer
// the worker rests after each job. It has no clock.
type pace struct {
	cores int
	least time.Duration // that a key exchange took which came to its end
	share float64       // of the time that the worker may work
	at    time.Time     // of the last look
	cells uint64        // until then
}

func newPace(cores int) *pace { return &pace{cores: cores, share: 1} }

// did notes what a whole key exchange took. One that failed early tells nothing of what they cost.
func (p *pace) did(took time.Duration) {
	if took > 0 && (p.least == 0 || took < p.least) {
		p.least = took
	}
}

// rest is how long a worker rests after a job that took so long and ended now, at which the relay had carried so many cells.
func (p *pace) rest(took time.Duration, now time.Time, cells uint64) time.Duration {
	if span := now.Sub(p.at); span >= paceLook {
		if !p.at.IsZero() {
			busy := float64(cells-p.cells) * p.least.Seconds() / cellPart / span.Seconds() / float64(p.cores)
			p.share = min(max(1-busy, leastShare), 1)
		}
		p.at, p.cells = now, cells
	}
	return time.Duration(float64(min(took, 4*p.least)) * (1/p.share - 1))
}
