#!/usr/bin/env bash
# Does with the names file what the agent does: none at the start, then a whole one, none at the end.
set -u
rm -f /run/mesh/names.json
trap 'rm -f /run/mesh/names.json /run/mesh/names.changed; exit 0' TERM
mkdir -p /run/mesh
cp /names.json /run/mesh/.names
mv /run/mesh/.names /run/mesh/names.json
touch /run/mesh/names.changed
systemd-notify --ready
sleep infinity &
wait
