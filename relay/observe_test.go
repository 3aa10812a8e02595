package relay

import (
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/directory"
)

func TestTheMostOfADayIsObserved(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	o := observed{at: now}
	var bytes uint64
	for _, step := range []struct {
		after time.Duration
		bytes uint64 // carried meanwhile
		want  uint64
	}{
		{10 * time.Second, 0, 0},
		{10 * time.Second, 5000, 500},
		{10 * time.Second, 1000, 500},                  // the most counts
		{20 * time.Second, 12000, 600},                 // a late look does not make it more
		{0, 1000, 600},                                 // nor does one at once
		{10 * time.Second, 70000, 7000},                // 12:01
		{time.Hour, 3600, 7000},                        // 13:01
		{10 * time.Second, 3000, 7000},                 //
		{21*time.Hour + 58*time.Minute, 0, 7000},       // 10:59
		{59 * time.Minute, 0, 7000},                    // 11:58
		{5 * time.Minute, 0, 300},                      // 12:03: what was at 12 yesterday is forgotten
		{30 * 24 * time.Hour, 0, 0},                    // asleep for a month
		{time.Second, 1 << 63, directory.MaxBandwidth}, // no more than can be written
	} {
		now = now.Add(step.after)
		bytes += step.bytes
		if got := o.add(now, bytes); got != step.want {
			t.Errorf("%v: %d bytes a second, want %d", now.Format("15:04:05"), got, step.want)
		}
	}
}

func TestTheDescriptorSaysWhatWasObserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		r := w.relays[0]
		r.stats.Cells.Add(1000)
		time.Sleep(observeSpan + time.Second)
		text, err := r.describe(&r.settled.Load().Settings, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		d, err := directory.ParseDescriptor(text)
		if least := uint64(1000 * cell.Size / 10); err != nil || d.Observed < least || d.Observed > 2*least {
			t.Errorf("it says %d bytes a second: %v", d.Observed, err)
		}
	})
}
