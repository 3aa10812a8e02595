package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peel/cmd/peel/internal/admin"
	"peel/cmd/peel/internal/conf"
)

func envCommand() *cobra.Command {
	node := which{kind: "client"}
	var shell, identity string
	var unset bool
	c := &cobra.Command{
		Use: "env", Short: "Print what makes a shell's programs use a client", Args: cobra.NoArgs,
		Long: `Prints commands for a shell that set ALL_PROXY and the like to the port of a client, running or, with --config, to be
started. Programs that heed them (curl, git, npm, Go programs and many others; pip with PySocks) then go through the
network; others do not, and nothing keeps them from connecting as ever.

https_proxy, in small letters, names an HTTP proxy, which the port is for https: wget and Python's urllib, which know no SOCKS, heed no
other, and so fetch https addresses and refuse http ones. In Python, requests with PySocks fetches both.

With --identity the programs of this shell share no circuit with those of other shells.`,
		Example: `  eval "$(peel env --dir my-client)"                    # sh, bash, zsh
  peel env --dir my-client | source                     # fish
  peel env --dir my-client | Out-String | iex           # PowerShell
  eval "$(peel env --dir my-client --identity work)"
  eval "$(peel env --unset)"`,
		RunE: func(c *cobra.Command, _ []string) error {
			write, err := shellOf(shell)
			if err != nil {
				return err
			}
			if unset {
				writeUnset(c.OutOrStdout(), write)
				return nil
			}
			if identity != "" && !identityName.MatchString(identity) {
				return &usageError{fmt.Errorf("--identity %q: give up to 64 letters, digits, dots, dashes and underscores", identity)}
			}
			all, err := findDoors(c.Context(), &node)
			if err != nil {
				return err
			}
			return writeEnv(c.OutOrStdout(), write, all, identity)
		},
	}
	node.flags(c)
	f := c.Flags()
	f.StringVar(&shell, "shell", "", "`sh`, fish or powershell (default: that of $SHELL)")
	f.StringVar(&identity, "identity", "", "a `name`: circuits are shared with those of the same name only")
	f.BoolVar(&unset, "unset", false, "undo it")
	return c
}

var identityName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// A shell says how its variables are set and removed.
type shellForm struct{ set, unset, quote string }

// quoted is a value that the shell does not change.
func (s shellForm) quoted(v string) string { return "'" + strings.ReplaceAll(v, "'", s.quote) + "'" }

var shells = map[string]shellForm{
	"sh":         {"export %s=%s", "unset %s", `'\''`},
	"fish":       {"set -gx %s %s", "set -e %s", `\'`},
	"powershell": {"$Env:%s = %s", "Remove-Item -ErrorAction Ignore Env:%s", "''"},
}

// shellOf is the form of a shell; "": that which runs us, as far as can be seen.
func shellOf(name string) (shellForm, error) {
	if name == "" {
		name = "sh"
		if runtime.GOOS == "windows" {
			name = "powershell"
		} else if filepath.Base(os.Getenv("SHELL")) == "fish" {
			name = "fish"
		}
	}
	switch name {
	case "bash", "zsh", "dash", "ksh":
		name = "sh"
	case "pwsh":
		name = "powershell"
	}
	s, ok := shells[name]
	if !ok {
		return s, &usageError{fmt.Errorf("--shell %q: give sh, fish or powershell", name)}
	}
	return s, nil
}

// findDoors are where programs find a client: as it says itself if it runs, else as its configuration has it.
func findDoors(ctx context.Context, node *which) ([]doorShown, error) {
	all, err := askDoors(ctx, node)
	var gone *admin.NotRunning
	if err == nil || node.config == "" || !errors.As(err, &gone) && !errors.Is(err, errNoState) {
		return all, err
	}
	var f conf.Client
	if err := conf.Load(node.config, &f); err != nil {
		return nil, inUse(err)
	}
	for _, d := range f.Doors() {
		if path := d.Unix(); path != "" {
			all = append(all, doorShown{"unix", path})
			continue
		}
		if _, port, _ := net.SplitHostPort(d.Address); port != "0" { // else only the running client knows
			all = append(all, doorShown{"socks", d.Address})
		}
	}
	if f.DNS != "" {
		all = append(all, doorShown{"dns", f.DNS})
	}
	return all, nil
}

func askDoors(ctx context.Context, node *which) ([]doorShown, error) {
	a, err := node.ask()
	if err != nil {
		return nil, err
	}
	text, err := a.Get(ctx, "/doors")
	if err != nil {
		return nil, err
	}
	var p doorsPage
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, fmt.Errorf("the client's answer: %w", err)
	}
	return p.Doors, nil
}

// proxyVariables are those that programs heed, in capitals and not, with what they say of the port at addr: SOCKS. But https_proxy,
// which is all that wget heeds, says that it is an HTTP proxy, as it is for https. None may have them go around it.
func proxyVariables(addr, identity string) [][2]string {
	if identity != "" {
		addr = identity + ":peel@" + addr
	}
	var all [][2]string
	for _, v := range [][2]string{
		{"ALL_PROXY", "socks5h://" + addr}, {"HTTP_PROXY", "socks5h://" + addr}, {"HTTPS_PROXY", "socks5h://" + addr}, {"NO_PROXY", ""},
	} {
		all = append(all, v)
		if runtime.GOOS != "windows" { // where they would be the same
			all = append(all, [2]string{strings.ToLower(v[0]), v[1]})
		}
	}
	for i := range all {
		if all[i][0] == "https_proxy" {
			all[i][1] = "http://" + addr
		}
	}
	return all
}

func writeEnv(w io.Writer, s shellForm, all []doorShown, identity string) error {
	i := slices.IndexFunc(all, func(d doorShown) bool { return d.Kind == "socks" })
	if i < 0 {
		return errors.New("this client has no port of an address that is known: start it if socks has port 0, or give it one. A unix socket has no form that most programs take (curl: --proxy socks5h://localhost/PATH)")
	}
	addr, err := localAddr(all[i].Address)
	if err != nil {
		return err
	}
	for _, v := range proxyVariables(addr, identity) { // "" is not removed: a shell may have another one below
		fmt.Fprintf(w, s.set+"\n", v[0], s.quoted(v[1]))
	}
	fmt.Fprintf(w, s.set+"\n", "PEEL_SOCKS", s.quoted(addr))
	for _, d := range all {
		if d.Kind == "dns" {
			if addr, err := localAddr(d.Address); err == nil {
				fmt.Fprintf(w, s.set+"\n", "PEEL_DNS", s.quoted(addr))
			}
			break
		}
	}
	return nil
}

func writeUnset(w io.Writer, s shellForm) {
	for _, v := range append(proxyVariables("", ""), [2]string{"PEEL_SOCKS"}, [2]string{"PEEL_DNS"}) {
		fmt.Fprintf(w, s.unset+"\n", v[0])
	}
}

// localAddr is the address by which programs of this machine reach one that is listened on.
func localAddr(listened string) (string, error) {
	host, port, err := net.SplitHostPort(listened)
	if err != nil || !digits.MatchString(port) {
		return "", fmt.Errorf("%q is not an address and a port", listened)
	}
	a, err := netip.ParseAddr(host)
	if a.Zone() != "" {
		err = errors.New("a zone")
	}
	switch {
	case host == "", err == nil && a.IsUnspecified() && a.Is4():
		host = "127.0.0.1"
	case err == nil && a.IsUnspecified():
		host = "::1"
	case err != nil && !hostName.MatchString(host): // it goes into a shell
		return "", fmt.Errorf("%q is not an address and a port", listened)
	}
	return net.JoinHostPort(host, port), nil
}

var (
	digits   = regexp.MustCompile(`^[0-9]{1,5}$`)
	hostName = regexp.MustCompile(`^[A-Za-z0-9.-]{1,253}$`)
)
