#!/bin/sh
# Installs the servers that the tests start: one line per service, quiet when all is there. Debian and Ubuntu.
set -eu

missing=
need() { # need <file or command> <package>
    command -v "$1" >/dev/null 2>&1 || ls $1 >/dev/null 2>&1 || missing="$missing $2"
}

need '/usr/lib/postgresql/*/bin/initdb' postgresql
need redis-server redis-server
need openssl openssl
need /usr/sbin/mariadbd mariadb-server

[ -z "$missing" ] && exit 0
echo "installing$missing"
sudo=$([ "$(id -u)" = 0 ] || echo sudo)
$sudo apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
