package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"peel/cmd/peel/internal/conf"
)

// typed runs a command line and returns what became of it.
func typed(args ...string) error {
	c := root()
	c.SetArgs(args)
	c.SetOut(io.Discard)
	c.SetErr(io.Discard)
	return c.Execute()
}

// foreign are words of the libraries that read command lines, which nobody who typed one can do anything with.
var foreign = []string{"strconv", "parsing", "invalid argument", "time:", "shorthand", "group [", "arg(s)", "flag(s)", "pflag", "unknown flag"}

// Whatever is wrong with the flags of any command is the user's mistake (status 2), and told in words that help.
func TestEveryWrongFlagIsAMistakeInUse(t *testing.T) {
	mistake := func(says string, args ...string) {
		t.Helper()
		err := typed(args...)
		if wrong := new(usageError); !errors.As(err, &wrong) {
			t.Errorf("peel %s: %v, which is not a mistake in use", strings.Join(args, " "), err)
			return
		}
		for _, word := range foreign {
			if strings.Contains(err.Error(), word) {
				t.Errorf("peel %s: %q has %q", strings.Join(args, " "), err, word)
			}
		}
		if !strings.Contains(err.Error(), says) {
			t.Errorf("peel %s: %q, want %q", strings.Join(args, " "), err, says)
		}
	}
	seen := 0
	var walk func(c *cobra.Command, path []string)
	walk = func(c *cobra.Command, path []string) {
		seen++
		with := func(more ...string) []string { return append(append([]string{}, path...), more...) }
		mistake("there is no flag --no-such-flag", with("--no-such-flag")...)
		mistake("there is no flag -§", with("-§")...)
		c.Flags().VisitAll(func(f *pflag.Flag) {
			switch f.Value.Type() {
			case "bool":
				mistake("give --"+f.Name+" alone", with("--"+f.Name+"=perhaps")...)
			case "string", "stringArray":
				mistake("--"+f.Name+": give a value", with("--"+f.Name)...)
			case "stringSlice":
				mistake("give texts with commas", with("--"+f.Name+"=a\"b")...)
			default:
				mistake("--"+f.Name+` "much": `, with("--"+f.Name+"=much")...)
			}
		})
		if c.Args == nil && len(path) > 0 {
			t.Errorf("peel %s takes any argument", strings.Join(path, " "))
		}
		for _, v := range c.Commands() {
			walk(v, with(v.Name()))
		}
	}
	walk(root(), nil)
	if seen < 30 {
		t.Errorf("only %d commands were tried", seen)
	}
}

// What is missing, too much or near something is told as such.
func TestWrongCommandLines(t *testing.T) {
	for line, want := range map[string]string{
		"sttus":                                `there is no command "peel sttus"; did you mean "peel status"?`,
		"sttus --config x":                     `did you mean "peel status"?`,
		"xyzzy":                                `there is no command "peel xyzzy" (see peel --help)`,
		"keys rotat":                           `did you mean "peel keys rotate"?`,
		"help sttus":                           `did you mean "peel status"?`,
		"completion tcsh":                      `there is no command "peel completion tcsh"`,
		"testnet rum":                          `did you mean "peel testnet run"?`,
		"testnet curl -sS URL":                 `there is nothing to do with "curl" (a command to run comes after --`,
		"testnet --realys 3":                   "there is no flag --realys; did you mean --relays?",
		"testnet -relays 3":                    "there is no flag -relays; did you mean --relays?",
		"top":                                  `did you mean "peel testnet top"?`,
		"relay -config relay.toml":             "there is no flag -config; did you mean --config?",
		"relay -help":                          "there is no flag -help; did you mean --help?",
		"status -config=relay.toml":            "there is no flag -config; did you mean --config?",
		"relay":                                "--config must be given: the usage is peel relay --config FILE",
		"keys certify":                         "--identity, --signing-key must be given",
		"keys show":                            "an argument is missing: the usage is peel keys show PATH...",
		"version now":                          `there is nothing to do with "now"`,
		"man a b":                              `there is nothing to do with "b"`,
		"testnet --duration 5":                 "give a time with its unit, such as 5s, 2m or 1h30m; did you mean --duration 5s?",
		"testnet --churn soon":                 "give a time with its unit, such as 5s, 2m or 1h30m (see",
		"testnet --relays 3.5":                 `--relays "3.5": give a whole number`,
		"testnet export --port 70000 d":        "give a whole number from 0 to 65535",
		"testnet export d":                     "--compose, --kubernetes, --systemd: one of them must be given",
		"testnet export --compose":             "an argument is missing",
		"testnet export --compose --systemd d": "--compose and --systemd cannot be given together",
		"keys import x --config a --keys b":    "--config and --keys cannot be given together",
		"testnet run --pace fast x":            `--pace "fast": give a number, such as 2 or 0.5`,
		"testnet bench --size x":               `--size "x": must be a whole number with KiB, MiB or GiB`,
	} {
		err := typed(strings.Fields(line)...)
		if wrong := new(usageError); !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
			t.Errorf("peel %s: %v, want a mistake in use: %s", line, err, want)
		}
	}
	for _, line := range []string{"status --dir dir", "status --dir dir=x"} { // a folder that is called as its flag is
		if err := typed(strings.Fields(line)...); err == nil || !strings.Contains(err.Error(), "no such folder") {
			t.Errorf("peel %s: %v", line, err)
		}
	}
	for _, line := range []string{"", "keys", "completion", "help", "help keys rotate", "keys rotate --help", "--version"} {
		if err := typed(strings.Fields(line)...); err != nil {
			t.Errorf("peel %s: %v", line, err)
		}
	}
}

// Errors are told without the names of our packages, but with all that their users called so.
func TestErrorsKeepTheWordsOfTheirUsers(t *testing.T) {
	closed := errors.New("link: closed")
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("relay: dialing (%w): %w", errors.New("stream: gone"), closed), "dialing (gone): closed"},
		{&usageError{fmt.Errorf("client: %w", fmt.Errorf("circuit: hop 2: %w", closed))}, "hop 2: closed"},
		{errors.Join(closed, errors.New("cache: no consensus yet")), "closed\nno consensus yet"},
		{fmt.Errorf("client: the page says %q: %w", "my (link: here): stream: on", closed), `the page says "my (link: here): stream: on": closed`},
		{&fs.PathError{Op: "remove", Path: "/srv/a: link: b", Err: fs.ErrPermission}, "remove /srv/a: link: b: permission denied: run peel as the user that this belongs to, or as root"},
		{&conf.Error{File: "relay", Err: errors.New("this is a folder")}, "relay: this is a folder"},
		{about("exit", "%w", errors.New("relay: it is full")), "exit: it is full"},
		{errors.New("exit: relay: no such page"), "relay: no such page"},
		{&conf.Error{File: "relay.toml", Err: denied("open", "relay.toml")}, "relay.toml: permission denied: run peel as the user that this belongs to, or as root"},
		{fmt.Errorf("relay: key file: %w", denied("stat", "keys/link.key")), "key file: keys/link.key: permission denied: run peel as the user that this belongs to, or as root"},
		{fmt.Errorf("no folder: %w", denied("mkdir", "/srv/x")), "no folder: mkdir /srv/x: permission denied: choose another place, or run peel as a user who may"},
		{&fs.PathError{Op: "mkdir", Path: "/proc/x", Err: syscall.ENOENT}, "mkdir /proc/x: " + syscall.ENOENT.Error() + ": choose another place"},
		{fmt.Errorf("%w: get it from a backup", denied("open", "a")), "a: permission denied: get it from a backup"},
	} {
		if got := plainly(c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

func denied(call, path string) error { return &fs.PathError{Op: call, Path: path, Err: syscall.EACCES} }

// What a flag cannot take is wrong use, whose status is 2, and is said before anything is begun: here, before it shows that the port is taken.
func TestWhatAFlagCannotTakeIsSaidFirst(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"testnet", "--socks", "127.0.0.1:80x"}, "give an address and a port"},
		{[]string{"testnet", "--socks", "127.0.0.1:99999"}, "give an address and a port"},
		{[]string{"testnet", "--dns", "127.0.0.1:80x"}, "such as 127.0.0.1:9253"},
		{[]string{"testnet", "--web", "0.0.0.0:0"}, "is not an address of this machine alone"},
		{[]string{"testnet", "--log", "inf"}, `did you mean "info"?`},
		{[]string{"testnet", "--weather", "stom"}, `did you mean "storm"?`},
		{[]string{"testnet", "--villain", "relay3=tga"}, `did you mean "tag"?`},
		{[]string{"testnet", "--villain", "relay33=tag"}, `there is no node "relay33"`},
		{[]string{"testnet", "--churn", "1s"}, "give at least 5s"},
		{[]string{"testnet", "--seed", "x"}, "give a whole number"},
		{[]string{"testnet", "--duration", "-1s"}, "must not be negative"},
		{[]string{"testnet", "run", "--web", "here", "first-page"}, "such as 127.0.0.1:9270"},
		{[]string{"testnet", "run", "--ground", "lopback", "first-page"}, `did you mean "loopback"?`},
		{[]string{"status"}, "peel testnet runs none that can be asked"},
		{[]string{"status", "--page", "--listen", "0.0.0.0:0"}, "is not an address of this machine alone"},
		{[]string{"init", "client", "x", "--socks", "127.0.0.1:80x"}, "is not an address and a port"},
	} {
		if c.args[0] == "testnet" && c.args[1] != "run" && c.args[1] != "--socks" {
			c.args = append(c.args, "--socks", taken.Addr().String())
		}
		verb := root()
		verb.SetArgs(c.args)
		err := verb.ExecuteContext(t.Context())
		if wrong := new(usageError); !errors.As(err, &wrong) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", strings.Join(c.args, " "), err)
		}
	}
}

// A time that is printed says of which zone it is, wherever the machine stands.
func TestTimesSayTheirZone(t *testing.T) {
	at := time.Date(2026, 3, 1, 1, 30, 0, 0, time.FixedZone("CET", 3600))
	if got := moment(at); got != "2026-03-01 00:30:00 UTC" {
		t.Error(got)
	}
	if got := stamp(at); got != "2026-03-01T00:30:00Z" {
		t.Error(got)
	}
}

// Help fits a terminal, and tables in it stay.
func TestHelpFitsATerminal(t *testing.T) {
	for _, v := range verbs(root()) {
		for line := range strings.Lines(v.Long) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 {
				t.Errorf("%s: a line of %d: %s", v.CommandPath(), n, line)
			}
		}
	}
	const text = "one two\nthree four\n\n  as it\n  is\n\na   table\nb   of two"
	if got := folded(text, 9); got != "one two\nthree\nfour\n\n  as it\n  is\n\na   table\nb   of two" {
		t.Errorf("%q", got)
	}
}

// A file or folder that the command line names and that is not there is a mistake in use, whatever the verb; one that is there and broken is not.
func TestWhatIsNotThereIsAMistakeInUse(t *testing.T) {
	dir := t.TempDir()
	none, broken := filepath.Join(dir, "none"), filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range [][]string{
		{"keys", "show", "FILE"},
		{"keys", "export", "FILE", "--out", filepath.Join(dir, "out")},
		{"keys", "import", "--keys", dir, "FILE"},
		{"consensus", "show", "FILE"},
		{"consensus", "diff", "FILE", "FILE"},
		{"client", "--config", "FILE"},
	} {
		for name, want := range map[string]bool{none: true, broken: line[0] == "client"} {
			args := slices.Clone(line)
			for i := range args {
				if args[i] == "FILE" {
					args[i] = name
				}
			}
			err := typed(args...)
			if wrong := new(usageError); err == nil || errors.As(err, &wrong) != want || name == none && !strings.Contains(err.Error(), name+": no such file") {
				t.Errorf("peel %s: %v", strings.Join(args, " "), err)
			}
		}
	}
	for _, line := range [][]string{
		{"keys", "backup", none, "--out", filepath.Join(dir, "out")}, {"status", "--dir", none},
		{"keys", "create", filepath.Join(dir, "out"), "--passphrase-file", none},
	} {
		if err, wrong := typed(line...), new(usageError); !errors.As(err, &wrong) || !strings.Contains(err.Error(), none) {
			t.Errorf("peel %s: %v", strings.Join(line, " "), err)
		}
	}
}
