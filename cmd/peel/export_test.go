package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"peel/cmd/peel/internal/conf"
)

// servePage serves the page of the scripts where it is told to.
func servePage() {
	l, err := net.Listen("tcp", os.Args[1])
	if err == nil {
		err = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, webPage) }))
	}
	fmt.Fprintln(os.Stderr, "serve-page:", err)
	os.Exit(1)
}

// exportTo exports a network into a folder of the test.
func exportTo(t *testing.T, args ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "net")
	c := root()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(append([]string{"testnet", "export", dir}, args...))
	if err := c.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	return dir
}

// strictYAML reads all documents of a file; a key that is not in the type is an error.
func strictYAML[T any](t *testing.T, path string) (all []T) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	for {
		var one T
		if err := d.Decode(&one); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, one)
	}
}

// runs checks that a node's command is one of ours, for a configuration that is in order in a folder.
func runs(t *testing.T, command []string, at, dir string) {
	t.Helper()
	c, rest, err := root().Find(command)
	if err == nil {
		err = c.ParseFlags(rest)
	}
	if err != nil || c == root() {
		t.Fatalf("peel %v: %v", command, err)
	}
	config, ok := strings.CutPrefix(c.Flag("config").Value.String(), at+"/")
	if !ok {
		t.Fatalf("peel %v: no file in %s", command, at)
	}
	kind := c.Name()
	if kind == "status" {
		return
	}
	for _, err := range conf.Examine(filepath.Join(dir, config), kind).Mistakes {
		t.Error(err)
	}
}

// reachedAt checks that others find a node at the address given.
func reachedAt(t *testing.T, dir, name, addr string) {
	t.Helper()
	network, err := conf.LoadNetwork(filepath.Join(dir, "network.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range network.Authorities {
		if a.Nickname == name && a.Addrs[0].String() == addr {
			return
		}
	}
	var f conf.Relay
	if err := conf.Load(filepath.Join(dir, "relay.toml"), &f); err != nil || !slices.Equal(f.Advertise, []string{addr}) {
		t.Errorf("%s is to be at %s: %v, %v", name, addr, f.Advertise, err)
	}
}

type composeFile struct {
	Services map[string]struct {
		Image       string
		Command     []string
		User        string
		ReadOnly    bool     `yaml:"read_only"`
		CapDrop     []string `yaml:"cap_drop"`
		SecurityOpt []string `yaml:"security_opt"`
		Volumes     []string
		Restart     string
		Grace       string `yaml:"stop_grace_period"`
		Healthcheck struct {
			Test     []string
			Interval string
			Start    string `yaml:"start_period"`
		}
		Ports    []string
		Networks map[string]struct {
			Addr string `yaml:"ipv4_address"`
		}
	}
	Networks map[string]struct {
		IPAM struct{ Config []struct{ Subnet string } }
	}
}

func TestExportForCompose(t *testing.T) {
	dir := exportTo(t, "--compose", "--relays", "4", "--exits", "2", "--socks", "127.0.0.1:7")
	f := strictYAML[composeFile](t, filepath.Join(dir, "compose.yaml"))[0]
	if len(f.Services) != 5+4+1 || f.Services["client"].Ports[0] != "127.0.0.1:7:9250" {
		t.Errorf("%+v", f)
	}
	_, subnet, err := net.ParseCIDR(f.Networks["peel"].IPAM.Config[0].Subnet)
	if err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile(filepath.Join(dir, ".env"))
	if err != nil || !regexp.MustCompile(`^COMPOSE_PROJECT_NAME=peel-testnet\nPEEL_UID=\d+\nPEEL_GID=\d+\n$`).Match(env) {
		t.Errorf("%q, %v", env, err)
	}
	seen := map[string]bool{}
	for name, s := range f.Services {
		folder, ok := strings.CutSuffix(s.Volumes[0], ":/var/lib/peel")
		if !ok || folder != "./"+name || !s.ReadOnly || s.CapDrop[0] != "ALL" {
			t.Errorf("%s: %+v", name, s)
		}
		own := filepath.Join(dir, folder)
		runs(t, s.Command, "/var/lib/peel", own)
		if s.Healthcheck.Test[0] != "CMD" || s.Healthcheck.Test[1] != "/peel" {
			t.Errorf("%s: %v", name, s.Healthcheck.Test)
		}
		runs(t, s.Healthcheck.Test[2:], "/var/lib/peel", own)
		addr := s.Networks["peel"].Addr
		if seen[addr] || !subnet.Contains(net.ParseIP(addr)) {
			t.Errorf("%s is at %s, in %v; others too: %v", name, addr, subnet, seen[addr])
		}
		seen[addr] = true
		if name != "client" {
			reachedAt(t, own, name, addr+":9001")
		}
	}
	if compose, err := exec.LookPath("docker-compose"); err != nil {
		t.Log("notice: docker-compose is not here: it does not check the file")
	} else if out, err := exec.Command(compose, "-f", filepath.Join(dir, "compose.yaml"), "config", "-q").CombinedOutput(); err != nil {
		t.Errorf("docker-compose config: %v: %s", err, out)
	}
}

// object is what is common to the objects of Kubernetes, with the parts that we use of those that we write.
type object struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   objectMeta
	Type       string
	StringData map[string]string `yaml:"stringData"`
	Spec       struct {
		ClusterIP   string     `yaml:"clusterIP"`
		Selector    yaml.Node  // of a service: labels; of a set: matchLabels
		Ports       []kubePort // of a service
		ServiceName string     `yaml:"serviceName"`
		Replicas    int
		Template    struct {
			Metadata objectMeta
			Spec     kubePod
		}
		Claims []struct {
			Metadata objectMeta
			Spec     struct {
				AccessModes []string `yaml:"accessModes"`
				Resources   kubeResources
			}
		} `yaml:"volumeClaimTemplates"`
	}
}

type objectMeta struct {
	Name, Namespace string
	Labels          map[string]string
}

type kubePort struct {
	Name, Protocol      string
	Port, ContainerPort int
}

type kubeResources struct{ Requests, Limits map[string]string }

type kubePod struct {
	Token           bool `yaml:"automountServiceAccountToken"`
	Links           bool `yaml:"enableServiceLinks"`
	Grace           int  `yaml:"terminationGracePeriodSeconds"`
	SecurityContext struct {
		NonRoot      bool                  `yaml:"runAsNonRoot"`
		User         int                   `yaml:"runAsUser"`
		Group        int                   `yaml:"runAsGroup"`
		FSGroup      int                   `yaml:"fsGroup"`
		ChangePolicy string                `yaml:"fsGroupChangePolicy"`
		Seccomp      struct{ Type string } `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	InitContainers []kubeContainer `yaml:"initContainers"`
	Containers     []kubeContainer
	Volumes        []struct {
		Name   string
		Secret struct {
			Name  string `yaml:"secretName"`
			Mode  int    `yaml:"defaultMode"`
			Items []struct{ Key, Path string }
		}
	}
}

type kubeContainer struct {
	Name, Image     string
	PullPolicy      string `yaml:"imagePullPolicy"`
	Command, Args   []string
	SecurityContext struct {
		Escalation   bool                    `yaml:"allowPrivilegeEscalation"`
		ReadOnly     bool                    `yaml:"readOnlyRootFilesystem"`
		Capabilities struct{ Drop []string } `yaml:"capabilities"`
	} `yaml:"securityContext"`
	Ports []struct {
		Port     int `yaml:"containerPort"`
		Protocol string
	}
	LivenessProbe struct {
		Exec    struct{ Command []string }
		Delay   int `yaml:"initialDelaySeconds"`
		Period  int `yaml:"periodSeconds"`
		Timeout int `yaml:"timeoutSeconds"`
	} `yaml:"livenessProbe"`
	Resources kubeResources
	Mounts    []struct {
		Name     string
		Path     string `yaml:"mountPath"`
		ReadOnly bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
}

// pod is a node of an exported network as Kubernetes would make it, in a folder of the test.
type pod struct {
	name, dir string
	args      []string
}

// pods makes the nodes' folders from the secrets, by the commands of their init containers, and checks what belongs together.
func pods(t *testing.T, dir string) (all []pod) {
	t.Helper()
	objects := map[string]map[string]object{}
	for _, o := range strictYAML[object](t, filepath.Join(dir, "kubernetes.yaml")) {
		if objects[o.Kind] == nil {
			objects[o.Kind] = map[string]object{}
		}
		if o.Kind != "Namespace" && o.Metadata.Namespace != kubernetesSpace {
			t.Errorf("%s %s is in another namespace", o.Kind, o.Metadata.Name)
		}
		if _, twice := objects[o.Kind][o.Metadata.Name]; twice {
			t.Errorf("%s %s is there twice", o.Kind, o.Metadata.Name)
		}
		objects[o.Kind][o.Metadata.Name] = o
	}
	if len(objects) != 4 || len(objects["Secret"]) != len(objects["StatefulSet"]) || len(objects["Service"]) != len(objects["StatefulSet"]) {
		t.Fatalf("kinds %v", objects)
	}
	work := t.TempDir()
	for name, set := range objects["StatefulSet"] {
		service, spec := objects["Service"][set.Spec.ServiceName], set.Spec.Template.Spec
		var selected map[string]string
		if err := service.Spec.Selector.Decode(&selected); err != nil || fmt.Sprint(selected) != fmt.Sprint(set.Spec.Template.Metadata.Labels) {
			t.Errorf("%s: the service selects %v, %v", name, selected, err)
		}
		var sel map[string]map[string]string
		if err := set.Spec.Selector.Decode(&sel); err != nil || fmt.Sprint(sel["matchLabels"]) != fmt.Sprint(selected) {
			t.Errorf("%s: the set matches %v, %v", name, sel, err)
		}
		// The folder as the kubelet mounts it, and what the init container makes of it.
		given, own := filepath.Join(work, name, "given"), filepath.Join(work, name, "own")
		secret := spec.Volumes[0].Secret
		for _, i := range secret.Items {
			path := filepath.Join(given, filepath.FromSlash(i.Path))
			os.MkdirAll(filepath.Dir(path), 0o755)
			text, ok := objects["Secret"][secret.Name].StringData[i.Key]
			if err := os.WriteFile(path, []byte(text), 0o444); !ok || err != nil {
				t.Fatalf("%s: %s: %v", name, i.Key, err)
			}
		}
		if err := os.MkdirAll(own, 0o775); err != nil {
			t.Fatal(err)
		}
		script := strings.NewReplacer("/given", given, "/var/lib/peel", own).Replace(spec.InitContainers[0].Command[2])
		for range 2 { // and a second start
			if out, err := exec.Command(spec.InitContainers[0].Command[0], spec.InitContainers[0].Command[1], script).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", name, err, out)
			}
		}
		main := spec.Containers[0]
		runs(t, main.Args, "/var/lib/peel", own)
		runs(t, main.LivenessProbe.Exec.Command[1:], "/var/lib/peel", own)
		if name != "client" {
			reachedAt(t, own, name, fmt.Sprint(service.Spec.ClusterIP, ":", service.Spec.Ports[0].Port))
			if main.Ports[0].Port != service.Spec.Ports[0].Port {
				t.Errorf("%s: ports %d and %d", name, main.Ports[0].Port, service.Spec.Ports[0].Port)
			}
		}
		if len(set.Spec.Claims) != 1 || set.Spec.Claims[0].Metadata.Name != main.Mounts[0].Name || !spec.SecurityContext.NonRoot {
			t.Errorf("%s: %+v", name, set.Spec)
		}
		all = append(all, pod{name, own, main.Args})
	}
	return all
}

func TestExportForKubernetes(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip(err)
	}
	dir := exportTo(t, "--kubernetes", "--authorities", "4", "--relays", "3", "--exits", "1", "--address", "10.43.0.100")
	if got := pods(t, dir); len(got) != 4+3+1 {
		t.Errorf("%d nodes", len(got))
	}
}

func TestExportForSystemd(t *testing.T) {
	dir := exportTo(t, "--systemd", "--authorities", "1", "--relays", "5", "--exits", "1", "--host", "192.0.2.1,2001:db8::1")
	for host, want := range map[string]string{"192.0.2.1": "authority1 relay2 relay4 client", "2001-db8--1": "relay1 relay3 relay5"} {
		script, err := os.ReadFile(filepath.Join(dir, host, "install.sh"))
		if err != nil || !strings.Contains(string(script), "for node in "+want+"; do") {
			t.Errorf("%s: %v: %s", host, err, script)
		}
		if sh, err := exec.LookPath("sh"); err == nil {
			if out, err := exec.Command(sh, "-n", filepath.Join(dir, host, "install.sh")).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", host, err, out)
			}
		}
		for _, n := range strings.Fields(want) {
			kind := strings.TrimRight(n, "0123456789")
			unit := mustRead(t, filepath.Join(dir, host, "peel-testnet-"+kind+"@.service"))
			for _, m := range regexp.MustCompile(`(?m)^Exec\w+=/usr/bin/peel (.*)$`).FindAllStringSubmatch(string(unit), -1) {
				if !strings.HasPrefix(m[1], "reload") {
					runs(t, strings.Fields(strings.ReplaceAll(m[1], "%i", n)), "/var/lib/peel-testnet/"+n, filepath.Join(dir, host, n))
				}
			}
			if !strings.Contains(string(script), "peel-testnet-"+kind+"@"+n) {
				t.Errorf("%s: %s is not started", host, n)
			}
		}
	}
	reachedAt(t, filepath.Join(dir, "192.0.2.1", "relay4"), "relay4", "192.0.2.1:9003")
	for hosts, want := range map[string]string{"192.0.2.1": "true", "100.64.0.1": "true", "20.0.0.1": "false"} { // as authorities judge
		dir := exportTo(t, "--systemd", "--authorities", "1", "--relays", "3", "--exits", "1", "--host", hosts)
		text, err := os.ReadFile(filepath.Join(dir, hosts, "authority1", "authority.toml"))
		if err != nil || !strings.Contains(string(text), "private_addresses = "+want+"\n") {
			t.Errorf("%s: %v, not private_addresses = %s", hosts, err, want)
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("notice: systemd-analyze is not here: it does not check the units")
	}
	verify := []string{"verify"}
	for _, kind := range []string{"authority", "relay", "client"} {
		text := mustRead(t, filepath.Join(dir, "192.0.2.1", "peel-testnet-"+kind+"@.service"))
		unit := filepath.Join(t.TempDir(), "peel-testnet-"+kind+"@x.service")
		if err := os.WriteFile(unit, bytes.ReplaceAll(text, []byte("/usr/bin/peel"), []byte("/bin/true")), 0o644); err != nil {
			t.Fatal(err)
		}
		verify = append(verify, unit)
	}
	if out, err := exec.Command(analyze, verify...).CombinedOutput(); err != nil || bytes.Contains(out, []byte("x.service")) {
		t.Errorf("systemd-analyze verify: %v: %s", err, out)
	}
}
