package story

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// key names a circuit among those of all clients.
func key(client string, id uint64) string { return fmt.Sprintf("%s/%d", client, id) }

// Circuits takes in all open circuits that a client has at a time. Those that were open and are missing twice are over: once may be
// that one was built while the list was on its way. Of a Circuit given, Key, Client, Out, In and Ended are not looked at.
func (s *Story) Circuits(at time.Time, client string, all []Circuit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	for i := range all {
		if c := s.follow(at, client, all[i]); c != nil {
			c.missed = -1
		}
	}
	for k, c := range s.circuits {
		if c.Client != client || c.State != Open && c.State != Closing {
			continue
		}
		if c.missed++; c.missed >= 2 {
			s.end(at, k, c, Closed, "")
		}
	}
}

// Circuit tells what happened to one circuit: it is being built, is open, closed or failed, and why.
func (s *Story) Circuit(at time.Time, client string, c Circuit, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	f := s.follow(at, client, c)
	if f == nil {
		if f = s.circuits[key(client, c.ID)]; f == nil {
			return
		}
		f.Why = cmp.Or(f.Why, cut(c.Why, mostText)) // it is over, and now we hear why
	} else if c.State == Closed || c.State == Failed {
		s.end(at, f.Key, f, c.State, c.Why)
	}
	s.tell(Event{At: at, Node: client, Circuit: f.Key, Kind: OfCircuit, Text: text})
}

// follow finds a circuit, or begins to follow it; nil: there are too many, or it is over.
func (s *Story) follow(at time.Time, client string, c Circuit) *followed {
	k := key(client, c.ID)
	f := s.circuits[k]
	switch {
	case f == nil && len(s.circuits)-len(s.past) >= mostOpen:
		return nil
	case f == nil:
		f = &followed{}
		f.Begun = c.Begun
		if f.Begun.IsZero() {
			f.Begun = at
		}
		s.circuits[k] = f
	case f.Ended != nil:
		return nil
	}
	f.Key, f.Client, f.ID = k, client, c.ID
	if len(c.Path) > 0 {
		f.Path = slices.Clone(c.Path)
	}
	if c.State != "" {
		f.State = c.State
	}
	f.Purpose = cmp.Or(cut(c.Purpose, mostPurpose), f.Purpose)
	f.Streams = c.Streams
	f.Sent, f.Received = max(f.Sent, c.Sent), max(f.Received, c.Received)
	return f
}

// end is the end of a circuit. It is kept for a while.
func (s *Story) end(at time.Time, k string, c *followed, state, why string) {
	if c.Ended != nil {
		return
	}
	c.State, c.Ended, c.Streams, c.In, c.Out, c.Why = state, &at, 0, 0, 0, cut(why, mostText)
	s.past = append(s.past, k)
	for len(s.past) > mostOver {
		delete(s.circuits, s.past[0])
		s.past = slices.Delete(s.past, 0, 1)
	}
}
