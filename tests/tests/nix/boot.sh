#!/usr/bin/env bash
# Inside the booted system, with the units, the configuration and the tmpfiles rule that NixOS' module made.
set -eu
mesh=$(sed -n 's|^ExecStart=\(.*/mesh\) agent run$|\1|p' /etc/systemd/system/mesh-agent.service)
deadline=$((SECONDS + 40))
until "$mesh" status 2>/tmp/why | grep -q '^admitted *yes'; do
  if [ "$SECONDS" -ge "$deadline" ]; then
    cat /tmp/why
    journalctl --no-pager -u mesh-agent -u mesh-controller
    exit 1
  fi
  sleep 0.1
done
systemctl is-active mesh-agent.service mesh-controller.service mesh-online.target
[ "$(systemctl show -P User mesh-agent.service)" = mesh ]
[ "$(systemctl show -P User mesh-controller.service)" = mesh-controller ]
[ "$(stat -c '%a %U %G' /run/mesh)" = "1775 root mesh" ]
ip -6 -oneline address show dev mesh0 | grep -F "fdc3:582e:db61:0:f785:d658:d2e9:df7d"
