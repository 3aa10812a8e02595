package testnet

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"
)

// together is how many tests run at once at least.
var together = 4

func TestMain(m *testing.M) {
	// Most of the time tests wait for networks to have their first consensus.
	flag.Set("test.parallel", strconv.Itoa(max(together, runtime.GOMAXPROCS(0))))
	os.Exit(m.Run())
}
