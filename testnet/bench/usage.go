package bench

import (
	"context"
	"errors"
	"time"
)

// usage is what the processes of a network use.
type usage struct {
	processes []Process // this one last
	idle      []float64 // MiB of each at rest; nil: not known on this system
	download  spent     // in the downloads of one stream through the client
}

// spent is what one step carried and what it took each process; cpu is nil where it cannot be known.
type spent struct {
	outcome
	cpu []time.Duration
}

// Why a figure is left out.
const (
	whySystem = "which is only known on Linux"
	whyOne    = "as all nodes are in one process"
	whyMany   = "as each node is a process"
)

// rest notes the memory of each process.
func (u *usage) rest() error {
	for _, p := range u.processes {
		now, _, err := memory(p.PID)
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		if err != nil {
			return err
		}
		u.idle = append(u.idle, now)
	}
	return nil
}

// cpu reads the processor time of each process.
func (u *usage) cpu() ([]time.Duration, error) {
	var ts []time.Duration
	for _, p := range u.processes {
		t, err := cpuTime(p.PID)
		if errors.Is(err, errors.ErrUnsupported) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		ts = append(ts, t)
	}
	return ts, nil
}

// during says what a step takes each process.
func (u *usage) during(do func() (outcome, error)) (spent, error) {
	before, err := u.cpu()
	if err != nil {
		return spent{}, err
	}
	s := spent{}
	if s.outcome, err = do(); err != nil {
		return s, err
	}
	if s.cpu, err = u.cpu(); err != nil {
		return s, err
	}
	for i := range s.cpu {
		s.cpu[i] -= before[i]
	}
	return s, nil
}

// perByte is the time of process i, in nanoseconds a byte.
func (s *spent) perByte(i int) float64 {
	if s.cpu == nil || s.bytes == 0 {
		return 0
	}
	return float64(s.cpu[i].Nanoseconds()) / float64(s.bytes)
}

func (b *bencher) leave(key, why string) { b.report.LeftOut[key] = why }

// cpu notes what the processes of a role took, divided among so many.
func (b *bencher) cpu(key string, s spent, role string, among int) {
	b.sum(key, s, among, func(p Process) bool { return p.Role == role })
}

// cpuOf notes what the process of one node took.
func (b *bencher) cpuOf(key string, s spent, name string) {
	b.sum(key, s, 1, func(p Process) bool { return p.Name == name })
}

func (b *bencher) sum(key string, s spent, among int, of func(Process) bool) {
	total, found := 0.0, false
	for i, p := range b.usage.processes {
		if of(p) {
			total, found = total+s.perByte(i), true
		}
	}
	switch {
	case !found:
		b.leave(key, whyOne)
	case s.cpu == nil:
		b.leave(key, whySystem)
	default:
		b.report.Values[key] = Value{Mid: total / float64(among)}
	}
}

// memory notes the memory of each process after the loads: of the relays the median.
func (b *bencher) memory(context.Context) error {
	many := len(b.net.Processes) > 0
	keys, other, why := []string{"relay_rss_idle_MiB", "relay_rss_MiB", "client_rss_MiB"}, []string{"process_rss_MiB"}, whyMany
	if !many {
		keys, other, why = other, keys, whyOne
	}
	for _, k := range other {
		b.leave(k, why)
	}
	if b.usage.idle == nil {
		for _, k := range keys {
			b.leave(k, whySystem)
		}
		return nil
	}
	var relaysIdle, relays []float64
	for i, p := range b.usage.processes {
		now, peak, err := memory(p.PID)
		if err != nil {
			return err
		}
		switch p.Role {
		case RoleRelay:
			relaysIdle, relays = append(relaysIdle, b.usage.idle[i]), append(relays, now)
		case RoleClient:
			b.report.Values["client_rss_MiB"] = Value{Mid: now}
		case roleBench:
			if !many {
				b.report.Values["process_rss_MiB"] = Value{Mid: now}
			}
		}
		if many {
			b.report.Processes = append(b.report.Processes, ProcessReport{
				Name: p.Name, Role: p.Role, CPU: b.usage.download.perByte(i), Idle: b.usage.idle[i], RSS: now, Peak: peak,
			})
		}
	}
	if many {
		b.report.Values["relay_rss_idle_MiB"] = Value{Mid: median(relaysIdle)}
		b.report.Values["relay_rss_MiB"] = Value{Mid: median(relays)}
	}
	return nil
}
