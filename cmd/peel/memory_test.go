package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"peel/client"
	"peel/cmd/peel/internal/conf"
	"peel/relay"
)

func TestMemoryBudgetGoesByTheMachine(t *testing.T) {
	for _, x := range []struct{ available, relay, client int64 }{
		{64 << 20, 64 << 20, 16 << 20}, {1 << 30, 512 << 20, 128 << 20}, {4 << 30, 2 << 30, 512 << 20},
		{16 << 30, 8 << 30, 1 << 30}, {1 << 40, 16 << 30, 1 << 30}, {math.MaxInt64, 16 << 30, 1 << 30},
	} {
		if r, c := relayMemory(x.available), clientMemory(x.available); r != x.relay || c != x.client {
			t.Errorf("of %d bytes a relay takes %d, a client %d; want %d and %d", x.available, r, c, x.relay, x.client)
		}
	}
	if conf.LeastRelayMemory != relay.LeastMemory || conf.LeastClientMemory != client.LeastMemory {
		t.Error("the configuration and the nodes do not agree on the least memory")
	}
	if n := available(); n < 16<<20 {
		t.Errorf("this machine has %d bytes", n)
	}
}

func TestLimitsOfControlGroupsCount(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("self", "1:name=systemd:/x\n0::/a/b/c\n")
	write("fs/a/memory.max", "3000\n")
	write("fs/a/b/memory.max", "max\n")
	write("fs/a/b/c/memory.max", "5000\n")
	for _, x := range []struct {
		about string
		want  int64
	}{{"self", 3000}, {"none", math.MaxInt64}} {
		if got := groupMemory(filepath.Join(root, x.about), filepath.Join(root, "fs")); got != x.want {
			t.Errorf("%s: %d, want %d", x.about, got, x.want)
		}
	}
	const none = math.MaxInt64 / 4096 * 4096 // what version 1 says where there is no limit
	for _, x := range []struct {
		name, self, file, text string
		want                   int64
	}{
		{"version 1", "4:memory:/a/b\n0::/\n", "memory/a/b/memory.limit_in_bytes", "2000", 2000},
		{"version 1, in a group that has one", "4:memory:/a/b\n", "memory/a/memory.limit_in_bytes", "1500", 1500},
		{"version 1 without a limit", "4:memory:/free\n", "memory/free/memory.limit_in_bytes", fmt.Sprint(int64(none)), none},
		{"version 1 in a container", "4:memory:/seen/from/outside\n", "memory/memory.limit_in_bytes", "1200", 1200},
		{"version 1 with another controller", "4:cpu,memory:/x\n", "cpu,memory/x/memory.limit_in_bytes", "1100", 1100},
		{"version 2 beside version 1", "0::/u\n", "unified/u/memory.max", "1000", 1000},
	} {
		write("self", x.self)
		write("fs/"+x.file, x.text)
		if got := groupMemory(filepath.Join(root, "self"), filepath.Join(root, "fs")); got != x.want {
			t.Errorf("%s: %d, want %d", x.name, got, x.want)
		}
	}
	write("self", "0::/../../a")
	if got := groupMemory(filepath.Join(root, "self"), filepath.Join(root, "fs")); got != 3000 {
		t.Errorf("a group outside our root: %d", got)
	}
}
