#!/bin/sh
# Installs the servers that the tests start: one line per service, quiet when all is there. Debian and Ubuntu.
set -eu

missing=
need() { # need <file or command> <package>
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || ls $1 >/dev/null 2>&1 || missing="$missing $2"
}

need mariadbd mariadb-server
need '/usr/lib/postgresql/*/bin/initdb' postgresql
need redis-server redis-server
need openssl openssl

[ -z "$missing" ] && exit 0
command -v apt-get >/dev/null 2>&1 || {
    echo "error: the tests need the servers$missing (names of Debian's packages); install them and try again" >&2
    exit 1
}
echo "    installing$missing"
sudo=$([ "$(id -u)" = 0 ] || echo sudo)
$sudo apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
