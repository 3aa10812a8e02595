package client

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"strings"
	"time"

	"peel/directory/cache"
	"peel/directory/strict"
)

// How long a build may take (spec/client.md, section 3).
const (
	buildLimit  = 60 * time.Second // for any build, and before enough is known
	leastLimit  = time.Second      // what is quicker than this need not be replaced
	timesEnough = 100              // builds, and the limit is learned
	timesMost   = 1000             // builds that count: when there are more, all are halved
	timesShare  = 0.8              // of the builds are within the limit

	firstTime = 10 * time.Millisecond // the first bin ends here, and each next at a fifth more
	timeStep  = 1.2
	timeBins  = 50 // the last ends beyond buildLimit

	lateLook = 20 // of the last builds,
	lateMost = 18 // when so many were late, the network has changed: all is forgotten
)

// buildTimes learns how long builds take here. A build that is late goes on until buildLimit, so that its time is known as
// well: the share is that of all builds, and no law of their distribution has to be assumed to make up for what was cut off.
type buildTimes struct {
	durations
	last   uint32 // of the last builds, a bit each: late
	looked int    // how many of these there are, at most lateLook
}

// durations are how long some things took, by bin.
type durations struct {
	counts [timeBins]int
	total  int // the sum of counts
}

// count takes one in. When there are more than most, all are halved.
func (t *durations) count(d time.Duration, most int) {
	t.counts[bin(d)]++
	if t.total++; t.total <= most {
		return
	}
	t.total = 0
	for i := range t.counts {
		t.counts[i] /= 2
		t.total += t.counts[i]
	}
}

// within is the end of the first bin by which such a share of them was over.
func (t *durations) within(share float64) time.Duration {
	i := 0
	for sum := t.counts[0]; float64(sum) < share*float64(t.total); sum += t.counts[i] {
		i++
	}
	return time.Duration(float64(firstTime) * math.Pow(timeStep, float64(i)))
}

// bin is where a time is counted.
func bin(d time.Duration) int {
	if d <= firstTime {
		return 0
	}
	return min(int(math.Ceil(math.Log(float64(d)/float64(firstTime))/math.Log(timeStep))), timeBins-1)
}

// limit is how long a build may take now.
func (b *buildTimes) limit() time.Duration {
	if b.total < timesEnough {
		return buildLimit
	}
	return min(max(b.within(timesShare), leastLimit), buildLimit)
}

// add counts a build that took so long, to its end or to buildLimit.
func (b *buildTimes) add(d time.Duration) { b.count(d, timesMost) }

// ended notes whether a build was in time. When nearly all are late, what was learned is of another network, and forgotten.
func (b *buildTimes) ended(late bool) {
	b.last <<= 1
	if late {
		b.last |= 1
	}
	b.looked = min(b.looked+1, lateLook)
	n := 0
	for i := range b.looked {
		n += int(b.last >> i & 1)
	}
	if n >= lateMost {
		*b = buildTimes{}
	}
}

// timesFile is what is kept of build times.
type timesFile struct {
	Counts []int `toml:"counts"`
}

const timesName = "build-times.toml"

// encode writes what was learned.
func (b *buildTimes) encode() []byte {
	return fmt.Appendf(nil, "# How long circuits took to build: how many, by time. May be removed; it is learned anew.\ncounts = [%s]\n",
		strings.Trim(strings.Join(strings.Fields(fmt.Sprint(b.counts)), ", "), "[]"))
}

// parseTimes reads it back.
func parseTimes(text []byte) (b buildTimes, err error) {
	var f timesFile
	if err := strict.Decode(text, &f); err != nil {
		return b, err
	}
	if len(f.Counts) != timeBins {
		return b, fmt.Errorf("counts: %d numbers, want %d", len(f.Counts), timeBins)
	}
	for i, n := range f.Counts {
		if n < 0 || n > timesMost {
			return buildTimes{}, fmt.Errorf("counts: %d: must be 0 to %d", n, timesMost)
		}
		b.counts[i] = n
		b.total += n
	}
	if b.total > timesMost {
		return buildTimes{}, errors.New("counts: too many")
	}
	return b, nil
}

// loadTimes reads what an earlier run learned. Nothing but speed hangs on it: what is broken is learned anew.
func (p *pool) loadTimes(dir string) {
	if dir == "" {
		return
	}
	p.timesName = filepath.Join(dir, timesName)
	text, err := cache.ReadFile(p.timesName, 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		p.times, err = parseTimes(text)
	}
	if err != nil {
		p.core.log.Info("what was learned of build times is of no use", "why", err)
	}
}

// keepTimes writes what was learned. It is called from run only.
func (p *pool) keepTimes() {
	if p.timesName == "" {
		return
	}
	p.mu.Lock()
	text, any := p.times.encode(), p.times.total > 0
	p.mu.Unlock()
	if !any {
		return
	}
	if err := p.core.write(p.timesName, text); err != nil {
		p.core.log.Info("what was learned of build times could not be kept", "why", err)
	}
}
