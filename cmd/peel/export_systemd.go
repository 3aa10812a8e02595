package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// exportedUnit is the unit of the nodes of a kind, one an instance; it takes as much from them as the unit of a relay that we ship.
const exportedUnit = `[Unit]
Description=Peel test network, %%i
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
ExecStart=/usr/bin/peel %[1]s --config /var/lib/peel-testnet/%%i/%[1]s.toml
ExecReload=/usr/bin/peel reload --config /var/lib/peel-testnet/%%i/%[1]s.toml
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=2
WatchdogSec=120
TimeoutStartSec=60
TimeoutStopSec=45
LimitNOFILE=65536

User=peel-testnet
Group=peel-testnet
UMask=0077
ReadWritePaths=/var/lib/peel-testnet/%%i

CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
DevicePolicy=closed
LockPersonality=yes
MemoryDenyWriteExecute=yes
PrivateDevices=yes
PrivateTmp=yes
PrivateUsers=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service landlock_create_ruleset landlock_add_rule landlock_restrict_self
SystemCallFilter=~@privileged @resources

[Install]
WantedBy=multi-user.target
`

// installNodes puts what is beside it where the units look, and starts it. What is there already stays.
const installNodes = `#!/bin/sh
# Installs and starts the nodes of this machine. Run it as root; it needs /usr/bin/peel.
set -eu
cd "$(dirname "$0")"
if [ ! -x /usr/bin/peel ]; then
  echo "there is no /usr/bin/peel: install Peel first" >&2
  exit 1
fi
getent passwd peel-testnet >/dev/null || useradd --system --user-group --no-create-home --shell /usr/sbin/nologin peel-testnet
mkdir -p /var/lib/peel-testnet
chmod 755 /var/lib/peel-testnet
for node in %[1]s; do
  if [ ! -e "/var/lib/peel-testnet/$node" ]; then
    rm -rf "/var/lib/peel-testnet/$node.new"
    (umask 077 && cp -R "$node" "/var/lib/peel-testnet/$node.new")
    chmod -R go= "/var/lib/peel-testnet/$node.new"
    chown -R peel-testnet:peel-testnet "/var/lib/peel-testnet/$node.new"
    mv "/var/lib/peel-testnet/$node.new" "/var/lib/peel-testnet/$node"
  fi
done
cp peel-testnet-*@.service /etc/systemd/system/
systemctl daemon-reload
systemctl enable --now %[2]s
`

// hostFolder is the name of a machine's folder.
func hostFolder(a netip.Addr) string { return strings.ReplaceAll(a.String(), ":", "-") }

func (e *export) writeSystemd() error {
	var folders []string
	byHost := map[string][]*exported{}
	for i := range e.nodes {
		n := &e.nodes[i]
		folder := hostFolder(n.addr.Addr())
		if !slices.Contains(folders, folder) {
			folders = append(folders, folder)
		}
		byHost[folder] = append(byHost[folder], n)
	}
	for _, folder := range folders {
		if err := e.writeHost(filepath.Join(e.dir, folder), byHost[folder]); err != nil {
			return err
		}
	}
	return put(filepath.Join(e.dir, "README.md"), fmt.Sprintf(`# A Peel test network on machines with systemd

Each folder here is for the machine at that address, which needs Peel in /usr/bin (packaging/deb makes a package). The ports of
its nodes must be open to the other machines. For each machine:

    ssh root@MACHINE rm -rf peel-testnet
    scp -r FOLDER root@MACHINE:peel-testnet
    ssh root@MACHINE sh peel-testnet/install.sh

The client is on the first, %[1]s:

    ssh -L 9250:%[2]s root@%[1]s
    curl --socks5-hostname 127.0.0.1:9250 https://example.com/

Look into nodes with peel status --dir /var/lib/peel-testnet/relay1, and end them with systemctl stop 'peel-testnet-*'. Clocks
must agree: run an NTP client. Carry each folder to its machine only. All keys are here: it is a network for tests.
`, e.nodes[0].addr.Addr(), e.socks))
}

// writeHost writes the folder of one machine.
func (e *export) writeHost(dir string, nodes []*exported) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var names, units []string
	for _, n := range nodes {
		if err := e.writeNode(filepath.Join(dir, n.name), n); err != nil {
			return err
		}
		if err := put(filepath.Join(dir, "peel-testnet-"+n.kind+"@.service"), fmt.Sprintf(exportedUnit, n.kind)); err != nil {
			return err
		}
		names, units = append(names, n.name), append(units, "peel-testnet-"+n.kind+"@"+n.name)
	}
	return put(filepath.Join(dir, "install.sh"), fmt.Sprintf(installNodes, strings.Join(names, " "), strings.Join(units, " ")))
}
