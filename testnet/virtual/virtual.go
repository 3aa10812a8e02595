// Package virtual runs functions in virtual time, outside of tests too: time passes only when everybody waits, and then at once.
package virtual

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"runtime/debug"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// running lets one run go on at a time: the testing package has variables of its own.
var running sync.Mutex

// heapGrowth is by how many percent the heap grows between two collections of garbage.
const heapGrowth = 400

// Run runs do in a bubble of testing/synctest, whose clock begins at midnight UTC of 2000-01-01, and waits for its goroutines. The error
// says what was left when do returned, or that everybody waited for something that could not come. do must use no sockets, processes or
// signals, for which time cannot wait. While it runs os.Args and os.Stdout are the testing package's: do writes elsewhere.
func Run(do func()) (err error) {
	running.Lock()
	defer running.Unlock()
	if os.Getenv("GOGC") == "" { // much is thrown away, and little is held: a tenth of the work is saved
		defer debug.SetGCPercent(debug.SetGCPercent(heapGrowth))
	}
	none, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("virtual: %w", err)
	}
	defer none.Close()
	args, stdout := os.Args, os.Stdout
	os.Args, os.Stdout = os.Args[:1], none
	defer func() { os.Args, os.Stdout = args, stdout }()
	var failed error
	done := false
	body := func(t *testing.T) {
		defer func() {
			if p := recover(); p != nil {
				failed = fmt.Errorf("virtual: %v", p)
			}
		}()
		synctest.Test(t, func(*testing.T) {
			do()
			done = true
		})
	}
	code := testing.MainStart(deps{}, []testing.InternalTest{{Name: "virtual", F: body}}, nil, nil, nil).Run()
	switch {
	case failed != nil:
		return failed
	case !done || code != 0:
		return fmt.Errorf("virtual: it did not come to its end (%d)", code)
	}
	return nil
}

// deps is what the testing package asks of a test's main program.
type deps struct{}

var errNone = errors.New("virtual: there is no fuzzing")

type corpusEntry = struct {
	Parent     string
	Path       string
	Data       []byte
	Values     []any
	Generation int
	IsSeed     bool
}

func (deps) ImportPath() string                          { return "peel/testnet/virtual" }
func (deps) ModulePath() string                          { return "peel" }
func (deps) MatchString(_, _ string) (bool, error)       { return true, nil }
func (deps) SetPanicOnExit0(bool)                        {}
func (deps) StartCPUProfile(io.Writer) error             { return nil }
func (deps) StopCPUProfile()                             {}
func (deps) StartTestLog(io.Writer)                      {}
func (deps) StopTestLog() error                          { return nil }
func (deps) WriteProfileTo(string, io.Writer, int) error { return nil }
func (deps) CoordinateFuzzing(time.Duration, int64, time.Duration, int64, int, []corpusEntry, []reflect.Type, string, string) error {
	return errNone
}
func (deps) RunFuzzWorker(func(corpusEntry) error) error              { return errNone }
func (deps) ReadCorpus(string, []reflect.Type) ([]corpusEntry, error) { return nil, errNone }
func (deps) CheckCorpus([]any, []reflect.Type) error                  { return nil }
func (deps) ResetCoverage()                                           {}
func (deps) SnapshotCoverage()                                        {}
func (deps) InitRuntimeCoverage() (string, func(string, string) (string, error), func() float64) {
	return "", nil, nil
}
