package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"peel/directory/cache"
)

// quotaFile is where in Config.Dir what was sent in this period is kept.
const quotaFile = "quota"

// mostReserve is how much of a quota is left, at most, for circuits that are there when no more are taken; else a twentieth.
const mostReserve = 500e6

// A quota is how much a relay may send in a period, and did. It has no clock.
type quota struct {
	most  uint64 // bytes; 0: any number
	daily bool   // a day, else a month, of UTC

	began time.Time // when the period did
	sent  uint64
	left  time.Time // when the one began that a clock which went far back took us out of; zero: there is none
}

// at moves the quota on to the period of a time. A clock that goes back changes nothing, unless it was more than two days ahead of
// the period: what was sent then counts in the one there is, and in the one there was if the clock comes back to that. So it is with a
// machine without a battery, whose clock is years behind from when it starts until it has asked others.
func (q *quota) at(now time.Time) {
	switch began := q.periodOf(now); {
	case began.After(q.began):
		if !began.Equal(q.left) {
			q.sent = 0
		}
		q.began, q.left = began, time.Time{}
	case q.began.Sub(now) > 48*time.Hour:
		q.began, q.left = began, q.began
	}
}

func (q *quota) periodOf(now time.Time) time.Time {
	y, m, d := now.UTC().Date()
	if !q.daily {
		d = 1
	}
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// ends is when the period does.
func (q *quota) ends() time.Time {
	if q.daily {
		return q.began.AddDate(0, 0, 1)
	}
	return q.began.AddDate(0, 1, 0)
}

// low says that no more is to be taken on; spent that nothing is left.
func (q *quota) low() bool   { return q.most > 0 && q.sent+min(q.most/20, mostReserve) >= q.most }
func (q *quota) spent() bool { return q.most > 0 && q.sent >= q.most }

// pause is until when nothing is to be taken on; zero: it is.
func (q *quota) pause() time.Time {
	if q.low() {
		return q.ends()
	}
	return time.Time{}
}

const (
	quotaTitle = "peel-quota 1"
	quotaTime  = "2006-01-02T15:04:05Z"
)

func (q *quota) encode() []byte {
	return fmt.Appendf(nil, "%s\nbegan %s\nsent %d\n", quotaTitle, q.began.Format(quotaTime), q.sent)
}

// parse reads what encode wrote, and nothing else.
func (q *quota) parse(text []byte) error {
	lines := strings.Split(string(text[:min(len(text), 256)]), "\n")
	if len(lines) != 4 || lines[0] != quotaTitle {
		return errors.New("it is not written as it should be")
	}
	began, ok1 := strings.CutPrefix(lines[1], "began ")
	sent, ok2 := strings.CutPrefix(lines[2], "sent ")
	next := quota{most: q.most, daily: q.daily}
	var err1, err2 error
	next.began, err1 = time.Parse(quotaTime, began)
	next.sent, err2 = strconv.ParseUint(sent, 10, 63)
	if !ok1 || !ok2 || err1 != nil || err2 != nil || !bytes.Equal(next.encode(), text) {
		return errors.New("it is not written as it should be")
	}
	*q = next
	return nil
}

// load reads what was sent in this period, if there is a file about it.
func (q *quota) load(dir string, now time.Time) error {
	if dir != "" && q.most > 0 {
		path := filepath.Join(dir, quotaFile)
		text, err := cache.ReadFile(path, 1<<10)
		if err == nil {
			err = q.parse(text)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("relay: %s, which says how much was sent in this period: %w: remove it, and the period counts from nothing", path, err)
		}
	}
	q.at(now)
	return nil
}

// save replaces the file as a whole.
func (q *quota) save(write func(string, []byte) error, dir string) error {
	if dir == "" || q.most == 0 {
		return nil
	}
	return write(filepath.Join(dir, quotaFile), q.encode())
}
