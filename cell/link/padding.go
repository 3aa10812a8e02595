package link

import "time"

// A link that has been silent both ways for a random time between these sends a PADDING cell, so that those who log
// connections see it as one flow that goes on (spec/link.md, section 5).
const (
	paddingLeast = 1500 * time.Millisecond
	paddingMost  = 9500 * time.Millisecond
)

// padding says when a link that is silent since last should be padded; chance, from 0 up to 1, is drawn once a silence.
func padding(last time.Time, chance float64) time.Time {
	return last.Add(paddingLeast + time.Duration(chance*float64(paddingMost-paddingLeast)))
}
