package relay

import "time"

const (
	leastShare = 1.0 / 12               // of a worker's time that key exchanges get, however much else there is to do
	paceLook   = 100 * time.Millisecond // between two looks at how much that is
	cellPart   = 56                     // cells that cost as much as a key exchange
	lateRest   = time.Millisecond       // a rest that ends later than it should, by more than this: others want the cores
	waitMany   = 8                      // jobs that wait, for each core, only where more are asked for than can be done
)

// A pace keeps one worker of key exchanges from taking the cores from the cells of circuits: the more cells there are, the longer
// the worker rests after each job. It leaves them twice the time they took lately, as they may be few only because key exchanges
// are many: so they can always become more, until they have all but leastShare. So they have in a flood when its rests end late, as they do where
// other programs take part of the cores, and the time that passes says little. It has no clock.
type pace struct {
	cores  int
	least  time.Duration // that a key exchange took which came to its end
	share  float64       // of the time that the worker may work
	late   bool          // a rest ended late between the last two looks
	waking bool          // or since
	used   bool          // there were cells between the last two looks
	at     time.Time     // of the last look
	cells  uint64        // until then
}

func newPace(cores int) *pace { return &pace{cores: cores, share: 1} }

// did notes what a whole key exchange took. One that failed early tells nothing of what they cost.
func (p *pace) did(took time.Duration) {
	if took > 0 && (p.least == 0 || took < p.least) {
		p.least = took
	}
}

// rest is how long a worker rests after a job that took so long and ended now, at which the relay had carried so many cells. While
// there are some, and more jobs wait than workers soon do, it rests at least for a moment, so that those who have to do with cells get to work.
func (p *pace) rest(took time.Duration, now time.Time, cells uint64, waiting int) (rest time.Duration) {
	if span := now.Sub(p.at); span >= paceLook {
		if !p.at.IsZero() {
			p.used = cells > p.cells
			busy := float64(cells-p.cells) * p.least.Seconds() / cellPart / span.Seconds() / float64(p.cores)
			p.share = min(max(1-2*busy, leastShare), 1)
		}
		p.at, p.cells, p.late = now, cells, p.waking
		p.waking = false
	}
	share := p.share
	if p.used && waiting > waitMany*p.cores {
		rest = p.least / 4
		if p.late || p.waking {
			share = leastShare
		}
	}
	return max(rest, time.Duration(float64(min(took, 2*p.least))*(1/share-1)))
}

// rested notes by how much longer a rest was than it should be.
func (p *pace) rested(late time.Duration) { p.waking = p.waking || late > lateRest }
