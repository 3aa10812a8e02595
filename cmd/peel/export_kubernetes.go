package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const kubernetesSpace = "peel-testnet"

// nodeUser is the user of the image.
const nodeUser = 65532

// fillNode makes a node's folder of what a secret has, which belongs to another user: keys once, as relays renew theirs, and the rest at
// every start.
const fillNode = `umask 077
cd /var/lib/peel
mkdir -p state
cp /given/*.toml .
if [ -e /given/keys ] && [ ! -e keys ]; then
  rm -rf keys.new
  cp -RL /given/keys keys.new
  mv keys.new keys
fi
chmod -R go= state *.toml
[ ! -e keys ] || chmod -R go= keys
`

func (e *export) writeKubernetes() error {
	docs := []table{{{"apiVersion", "v1"}, {"kind", "Namespace"}, {"metadata", table{{"name", kubernetesSpace}}}}}
	for i := range e.nodes {
		n := &e.nodes[i]
		secret, items, err := e.secret(n)
		if err != nil {
			return err
		}
		port := table{{"name", "link"}, {"port", int(n.addr.Port())}, {"protocol", "TCP"}}
		address := n.addr.Addr().String()
		if n.kind == "client" {
			port[0].value, address = "socks", "None"
		}
		meta := table{{"name", n.name}, {"namespace", kubernetesSpace}, {"labels", labels(n)}}
		docs = append(docs, secret,
			table{{"apiVersion", "v1"}, {"kind", "Service"}, {"metadata", meta}, {"spec", table{
				{"clusterIP", address}, {"selector", labels(n)}, {"ports", []any{port}},
			}}},
			table{{"apiVersion", "apps/v1"}, {"kind", "StatefulSet"}, {"metadata", meta}, {"spec", e.statefulSet(n, items)}})
	}
	var b strings.Builder
	for i, d := range docs {
		if i > 0 {
			b.WriteString("---\n")
		}
		b.WriteString(yamlText(d))
	}
	if err := put(filepath.Join(e.dir, "kubernetes.yaml"), b.String()); err != nil {
		return err
	}
	return put(filepath.Join(e.dir, "README.md"), fmt.Sprintf(`# A Peel test network on Kubernetes

Build the image in Peel's sources, bring it to the cluster, for example with kind load docker-image, then start the network:

    docker build -f packaging/Containerfile -t %[1]s .
    kubectl apply -f kubernetes.yaml
    kubectl -n %[2]s rollout status statefulset/client
    kubectl -n %[2]s port-forward statefulset/client 9250

and use it: curl --socks5-hostname 127.0.0.1:9250 https://example.com/

A first container of each pod puts its files in place: it needs the image docker.io/library/busybox:1.37.

Nodes have the addresses of services, %[3]s and those that follow, for a network file names addresses. They must be in the
cluster's range of services and free. kubectl says so if they are not: export again with another --address, such as 10.43.0.100
for k3s. Each node keeps its state on a volume of the usual class, so that an authority never forgets what it signed.

kubectl delete namespace %[2]s ends the network. All keys are in kubernetes.yaml: it is a network for tests.
`, e.image, kubernetesSpace, e.nodes[0].addr.Addr()))
}

func labels(n *exported) table {
	return table{{"app.kubernetes.io/part-of", kubernetesSpace}, {"app.kubernetes.io/component", n.kind}, {"app.kubernetes.io/instance", n.name}}
}

// secret holds the files of a node's folder, and items say where each of them is in it.
func (e *export) secret(n *exported) (secret table, items []any, err error) {
	dir, err := os.MkdirTemp("", "peel-export")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	if err := e.writeNode(dir, n); err != nil {
		return nil, nil, err
	}
	var data table
	err = fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(path)))
		if err != nil {
			return err
		}
		key := filepath.Base(path)
		data = append(data, entry{key, string(text)})
		items = append(items, table{{"key", key}, {"path", path}})
		return nil
	})
	if err == nil && len(items) == 0 {
		err = errors.New("a node without files")
	}
	return table{{"apiVersion", "v1"}, {"kind", "Secret"}, {"metadata", table{{"name", n.name}, {"namespace", kubernetesSpace}, {"labels", labels(n)}}},
		{"type", "Opaque"}, {"stringData", data}}, items, err
}

func (e *export) statefulSet(n *exported, items []any) table {
	config := "/var/lib/peel/" + n.config()
	alone := table{{"allowPrivilegeEscalation", false}, {"readOnlyRootFilesystem", true}, {"capabilities", table{{"drop", texts("ALL")}}}}
	state := table{{"name", "state"}, {"mountPath", "/var/lib/peel"}}
	pod := table{
		{"automountServiceAccountToken", false}, {"enableServiceLinks", false}, {"terminationGracePeriodSeconds", 45},
		{"securityContext", table{{"runAsNonRoot", true}, {"runAsUser", nodeUser}, {"runAsGroup", nodeUser}, {"fsGroup", nodeUser},
			{"fsGroupChangePolicy", "OnRootMismatch"}, {"seccompProfile", table{{"type", "RuntimeDefault"}}}}},
		{"initContainers", []any{table{
			{"name", "files"}, {"image", "docker.io/library/busybox:1.37"}, {"command", texts("sh", "-ec", fillNode)}, {"securityContext", alone},
			{"volumeMounts", []any{state, table{{"name", "given"}, {"mountPath", "/given"}, {"readOnly", true}}}},
		}}},
		{"containers", []any{table{
			{"name", "peel"}, {"image", e.image}, {"imagePullPolicy", "IfNotPresent"}, {"args", texts(n.kind, "--config", config)}, {"securityContext", alone},
			{"ports", []any{table{{"containerPort", int(n.addr.Port())}, {"protocol", "TCP"}}}},
			{"livenessProbe", table{{"exec", table{{"command", texts("/peel", "status", "--config", config)}}}, {"initialDelaySeconds", 10}, {"periodSeconds", 30},
				{"timeoutSeconds", 10}}},
			{"resources", table{{"requests", table{{"cpu", "50m"}, {"memory", "64Mi"}}}, {"limits", table{{"memory", "512Mi"}}}}},
			{"volumeMounts", []any{state}},
		}}},
		{"volumes", []any{table{{"name", "given"}, {"secret", table{{"secretName", n.name}, {"defaultMode", 0o440}, {"items", items}}}}}},
	}
	return table{
		{"serviceName", n.name}, {"replicas", 1}, {"selector", table{{"matchLabels", labels(n)}}},
		{"template", table{{"metadata", table{{"labels", labels(n)}}}, {"spec", pod}}},
		{"volumeClaimTemplates", []any{table{{"metadata", table{{"name", "state"}}}, {"spec", table{
			{"accessModes", texts("ReadWriteOnce")}, {"resources", table{{"requests", table{{"storage", "64Mi"}}}}},
		}}}}},
	}
}
