package main

import (
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// What goes into a shell is an address and nothing else, whoever said it.
func TestEnvPrintsOnlyAddresses(t *testing.T) {
	for _, x := range []struct{ address, want string }{
		{"127.0.0.1:9250", "127.0.0.1:9250"}, {"localhost:9250", "localhost:9250"}, {"0.0.0.0:1", "127.0.0.1:1"}, {":1", "127.0.0.1:1"},
		{"[::]:1", "[::1]:1"}, {"[::1]:9250", "[::1]:9250"}, {"[fe80::1%a'b]:1", ""}, {"a'; rm -rf x; ':1", ""}, {"127.0.0.1:$(id)", ""},
		{"127.0.0.1", ""}, {"127.0.0.1:", ""}, {"`id`:1", ""}, {"a\nb:1", ""},
	} {
		between := map[string]string{"sh": "=", "fish": " ", "powershell": " = "}
		for name, s := range shells {
			var b strings.Builder
			err := writeEnv(&b, s, []doorShown{{"unix", "/x"}, {"socks", x.address}}, "me")
			if (err == nil) != (x.want != "") || err == nil && !strings.Contains(b.String(), "'socks5h://me:peel@"+x.want+"'\n") ||
				err == nil && !strings.Contains(b.String(), "HTTPS_PROXY"+between[name]+"'socks5h://me:peel@"+x.want+"'\n") ||
				err == nil && runtime.GOOS != "windows" && !strings.Contains(b.String(), "https_proxy"+between[name]+"'http://me:peel@"+x.want+"'\n") {
				t.Errorf("%s, %q: %v\n%s", name, x.address, err, &b)
			}
		}
	}
	if err := writeEnv(new(strings.Builder), shells["sh"], []doorShown{{"unix", "/x"}}, ""); err == nil || !strings.Contains(err.Error(), "unix socket") {
		t.Error(err)
	}
	if got := shells["sh"].quoted("a'b"); got != `'a'\''b'` {
		t.Error(got)
	}
}

// The lines are ones that shells take.
func TestShellsTakeTheLines(t *testing.T) {
	for name, args := range map[string][]string{"sh": {"sh", "-c"}, "fish": {"fish", "-c"}, "powershell": {"pwsh", "-Command"}} {
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Logf("%s is not here", args[0])
			continue
		}
		s := shells[name]
		var set, unset strings.Builder
		if err := writeEnv(&set, s, []doorShown{{"socks", "127.0.0.1:7"}}, ""); err != nil {
			t.Fatal(err)
		}
		writeUnset(&unset, s)
		show := "env"
		if name == "powershell" {
			show = "Get-ChildItem Env: | % { $_.Name + '=' + $_.Value }"
		}
		run := func(text string) string {
			out, err := exec.Command(args[0], args[1], text+"\n"+show).CombinedOutput()
			if err != nil {
				t.Errorf("%s: %v: %s", name, err, out)
			}
			return string(out)
		}
		if out := run(set.String()); !strings.Contains(out, "ALL_PROXY=socks5h://127.0.0.1:7\n") || !strings.Contains(out, "PEEL_SOCKS=127.0.0.1:7\n") {
			t.Errorf("%s: %s", name, out)
		}
		if out := run(set.String() + unset.String()); strings.Contains(out, "127.0.0.1:7") {
			t.Errorf("%s: still there: %s", name, out)
		}
	}
}
