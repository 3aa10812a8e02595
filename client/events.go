package client

import (
	"context"
	"sync/atomic"
	"time"

	"peel/client/path"
)

// EventKind is what an Event tells of.
type EventKind uint8

const (
	EventBootstrap     EventKind           = iota + 1 // the start has come further: Progress
	EventCircuitBuilt                                 // Circuit, Path
	EventCircuitFailed                                // Circuit could not be built along Path: Err
	EventCircuitClosed                                // Circuit is over; Err is why, nil: nothing needed it any longer
	EventNewIdentity                                  // NewIdentity was done
	EventCircuitLate                                  // Circuit takes too long and another is tried in its place
	EventCircuitBegun                                 // Circuit is being built along Path
	eventKinds         = EventCircuitBegun            // the last
)

func (k EventKind) String() string {
	names := [...]string{"bootstrap", "circuit built", "circuit failed", "circuit closed", "new identity", "circuit late", "circuit begun"}
	if k < EventBootstrap || k > eventKinds {
		return "unknown"
	}
	return names[k-1]
}

// Event is something that happened in a client. It names no host that anybody asked for.
type Event struct {
	Kind     EventKind
	Time     time.Time
	Progress Progress
	Circuit  uint64    // numbers circuits as they are begun, as CircuitInfo.ID does
	Path     path.Path // must not be changed
	Err      error
	Missed   int // events before this one that were dropped, since Config.Events took too long
}

// mostEvents, more than all circuits make when they end together, may wait for Config.Events; what is more is dropped and counted (spec/queues.md, section 5).
const mostEvents = 2048

// events hands what happens to Config.Events, in order, from one goroutine of Run. Nobody who tells of an event waits.
type events struct {
	to     func(Event)
	queue  chan Event // nil: nobody wants them
	missed atomic.Int64
}

func (e *events) init(to func(Event)) {
	if e.to = to; to != nil {
		e.queue = make(chan Event, mostEvents)
	}
}

// tell never blocks. It may be called under any lock.
func (e *events) tell(v Event) {
	if e.queue == nil {
		return
	}
	v.Time = time.Now()
	select {
	case e.queue <- v:
	default:
		e.missed.Add(1)
	}
}

// run hands events on until ctx ends, and then those that are left.
func (e *events) run(ctx context.Context) {
	if e.queue == nil {
		return
	}
	for {
		select {
		case v := <-e.queue:
			e.hand(v)
			continue
		case <-ctx.Done():
		}
		for {
			select {
			case v := <-e.queue:
				e.hand(v)
			default:
				return
			}
		}
	}
}

func (e *events) hand(v Event) {
	v.Missed = int(e.missed.Swap(0))
	e.to(v)
}
