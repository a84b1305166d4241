#!/bin/sh
# Makes what compose.yaml needs and no repository should hold: secrets, folders, and who the containers run as (whoever runs this; for
# root, user 10001). Secrets that are there are kept. Run it again after a restart of the machine: the folder for slabs is in memory.
set -eu
cd "$(dirname "$0")"
umask 077
slabs=${TOLLGATE_SLABS:-/dev/shm/tollgate}
mkdir -p secrets data/control data/gateway-1 data/gateway-2 data/prometheus "$slabs"
key() { [ -s "$1" ] || head -c 32 /dev/urandom | base64 >"$1"; }
token() { [ -s "$1" ] || head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$1"; }
key secrets/pepper
key secrets/sealing.key
token secrets/operator.token
token secrets/billing.token
user=$(id -u):$(id -g)
if [ "$(id -u)" = 0 ]; then
    user=10001:10001
    chown -R "$user" secrets data "$slabs"
fi
echo "TOLLGATE_USER=$user" >.env
echo "ready: docker compose up -d --build"
