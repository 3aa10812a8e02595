package lab

import "runtime"

// starter starts processes from a thread of its own, which stays as long as they may run: they end with the thread that started them.
type starter struct {
	work chan func()
	done chan struct{}
}

func newStarter() *starter {
	s := &starter{work: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for do := range s.work {
			do()
		}
	}()
	return s
}

// do starts one, and says how that went.
func (s *starter) do(start func() error) error {
	errs := make(chan error, 1)
	s.work <- func() { errs <- start() }
	return <-errs
}

// end ends the thread. All that it started has ended before.
func (s *starter) end() {
	close(s.work)
	<-s.done
}
