#!/bin/sh
# Runs a command beside Google's Datastore emulator, which no package registry has; it comes with the Cloud SDK.
set -eu

emulator=${DATASTORE_EMULATOR:-/usr/lib/google-cloud-sdk/platform/cloud-datastore-emulator/cloud_datastore_emulator}
[ -x "$emulator" ] && command -v java >/dev/null 2>&1 || {
    echo "error: no Datastore emulator at \`$emulator\`, or no Java; install \`google-cloud-cli-datastore-emulator\` from" \
        "Google, or name the program with DATASTORE_EMULATOR" >&2
    exit 1
}
folder=$(mktemp -d)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
setsid "$emulator" start --host=127.0.0.1 --port="$port" --store_on_disk=false --consistency=1.0 --testing "$folder" \
    >"$folder/log" 2>&1 &
server=$!
trap 'kill -- -$server 2>/dev/null; rm -rf "$folder"' EXIT
tries=0
until python3 -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1]))).close()' "$port" 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || { cat "$folder/log" >&2; exit 1; }
    sleep 0.2
done
DATASTORE_EMULATOR_HOST=127.0.0.1:$port "$@"
