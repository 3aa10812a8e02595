package netns

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"peel/testnet/memnet"
)

// endVariable makes a process of this test one end of a connection: where it listens, or where it sends to.
const endVariable = "PEEL_NETNS_END"

func TestMain(m *testing.M) {
	if end := os.Getenv(endVariable); end != "" {
		if err := beAnEnd(end[0], end[1:], os.Getenv(endVariable+"_SIZE")); err != nil {
			println(err.Error())
			os.Exit(1)
		}
		return
	}
	m.Run()
}

func beAnEnd(kind byte, at, size string) error {
	if kind == 'L' {
		l, err := net.Listen("tcp4", at)
		if err != nil {
			return err
		}
		os.Stdout.Close() // says that it listens
		c, err := l.Accept()
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, struct{ io.Reader }{c})
		return err
	}
	c, err := net.Dial("tcp4", at)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	for b := make([]byte, 1<<20); n > 0; n -= len(b) {
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
	return c.Close()
}

// BenchmarkTransfer measures what the emulator itself costs: processes send to each other over it. It needs root.
func BenchmarkTransfer(b *testing.B) {
	for _, w := range []struct {
		name string
		way  memnet.Way
	}{{"calm", memnet.Way{}}, {"delay=42ms", memnet.Way{Delay: 42 * time.Millisecond}}} {
		b.Run(w.name, func(b *testing.B) {
			n, s := spaces(b, 2)
			n.SetWays(fixed(w.way))
			end := func(what string) *exec.Cmd {
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), endVariable+"="+what, endVariable+"_SIZE="+strconv.Itoa(b.N<<20))
				cmd.Stderr = os.Stderr
				return cmd
			}
			at := s[1].Addr().String() + ":5000"
			in := end("L" + at)
			listens, err := in.StdoutPipe()
			if err != nil {
				b.Fatal(err)
			}
			if err := s[1].Start(in); err != nil {
				b.Fatal(err)
			}
			io.Copy(io.Discard, listens)
			b.SetBytes(1 << 20)
			b.ResetTimer()
			before := used()
			out := end("S" + at)
			if err := s[0].Start(out); err != nil {
				b.Fatal(err)
			}
			if err := errors.Join(out.Wait(), in.Wait()); err != nil {
				b.Fatal(err)
			}
			cpu, packets := used()-before, n.Counts().Carried
			b.ReportMetric(float64(cpu)/float64(packets), "cpu-ns/packet")
			b.ReportMetric(float64(packets)/float64(b.N), "packets/op")
			b.ReportMetric(float64(n.Counts().Full), "dropped")
		})
	}
}

// used is the CPU time that this process has used.
func used() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
