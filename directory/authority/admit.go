package authority

import (
	"errors"
	"fmt"
	"net/http"

	"peel/cell"
	"peel/directory"
)

// mostTold is how many relays are remembered whose refusal is in the log; beyond, all are forgotten.
const mostTold = 4096

// admit returns why a relay may not join, as far as that is the operator's decision, or nil.
func (s *store) admit(d *directory.Descriptor) error {
	l := s.lists.Load()
	if r := l.reject.find(d); r != nil {
		return &refusal{http.StatusForbidden, "this authority refuses " + r.Subject() + ": " + r.Reason, r}
	}
	if !l.lets(d) {
		return refuse(http.StatusForbidden, "relay %v is not on this network's list: ask its authorities to add it", d.ID)
	}
	return nil
}

// judgement is what new lists mean for a relay that was here: it is refused, or marked otherwise than before.
type judgement struct {
	desc    *directory.Descriptor
	refused error
	marks   directory.Flags
	rules   []*Rule
}

// use puts new lists in force, removes who may not be here any more, and returns for whom that changes
// something.
func (s *store) use(l *Lists) []judgement {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.lists.Swap(l)
	var changed []judgement
	for _, k := range s.sorted() {
		j := judgement{desc: k.desc, refused: s.admit(k.desc)}
		if j.refused != nil {
			s.remove(k)
			changed = append(changed, j)
			continue
		}
		before, _ := old.marks(k.desc)
		if j.marks, j.rules = l.marks(k.desc); j.marks != before {
			changed = append(changed, j)
		}
	}
	return changed
}

// Reload reads files of lists, in the stead of those before, and takes the relays that may join as Config.Allow does. All come
// into force together; with an error, which names file and line, what was before stays. Any goroutine may call it.
func (a *Authority) Reload(files []string, allow []cell.NodeID) error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	l, err := ReadLists(files)
	if err != nil {
		return fmt.Errorf("lists not loaded, those before stay in force: %w", err)
	}
	l.name(allow)
	changed := a.store.use(l)
	c := l.counts()
	a.log.Info("lists loaded", "allow", c.Allow, "reject", c.Reject, "badexit", c.BadExit, "middleonly", c.MiddleOnly, "relays-changed", len(changed))
	a.toldMu.Lock()
	clear(a.told)
	a.toldMu.Unlock()
	for i := range changed {
		if j := &changed[i]; j.refused != nil {
			a.tellRefused(j.desc.ID, j.desc.Nickname, j.refused)
		} else {
			a.tellMarked(j.desc, j.marks, j.rules)
		}
	}
	return nil
}

// tellRefused writes into the log who is refused by a list, by whom and why: once until lists are
// loaded again, so that nobody can fill the log.
func (a *Authority) tellRefused(id cell.NodeID, nickname string, err error) {
	var r *refusal
	if !errors.As(err, &r) {
		return
	}
	switch {
	case !a.tellOnce(id):
	case r.rule == nil:
		a.log.Info("relay refused", "relay", id, "nickname", nickname, "why", r.reason)
	default:
		a.log.Info("relay refused", "relay", id, "nickname", nickname, "rule", r.rule.Subject(), "why", r.rule.Reason, "by", r.rule.By)
	}
}

// tellOnce reports whether the log says nothing of a relay yet.
func (a *Authority) tellOnce(id cell.NodeID) bool {
	a.toldMu.Lock()
	defer a.toldMu.Unlock()
	if a.told[id] {
		return false
	}
	if len(a.told) >= mostTold {
		clear(a.told)
	}
	a.told[id] = true
	return true
}

// tellMarked writes into the log which flags a relay has from lists, by whom and why.
func (a *Authority) tellMarked(d *directory.Descriptor, marks directory.Flags, rules []*Rule) {
	if len(rules) == 0 {
		a.log.Info("relay is on no list any more", "relay", d.ID, "nickname", d.Nickname)
	}
	for _, r := range rules {
		a.log.Info("relay is on a list", "relay", d.ID, "nickname", d.Nickname, "flags", marks.String(), "rule", r.Subject(), "why", r.Reason, "by", r.By)
	}
}
