#!/usr/bin/env bash
# Makes sure that a PostgreSQL server for tests answers: installs Debian's or Ubuntu's `postgresql` if there is none,
# makes a cluster of its own, starts it if it does not run, and removes what tests left behind. Running it again
# changes nothing else. It syncs nothing to the disk, and holds nothing of value. Its socket is for root and the one
# who started it; by TCP, on this machine only, it takes one user with a password, over TLS.
#
#   PAAS_TEST_POSTGRES   the folder of the cluster and its socket (root: /var/lib/paas-postgres)
set -euo pipefail

if [ "$(id -u)" -eq 0 ]; then default=/var/lib/paas-postgres; else default="${XDG_CACHE_HOME:-$HOME/.cache}/paas/postgres"; fi
folder="${PAAS_TEST_POSTGRES:-$default}"
data="$folder/data"
port=54320

say() { printf 'postgres: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# PostgreSQL does not run as root.
as_server() {
    if [ "$(id -u)" -eq 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi
}

# Nothing, where nothing is installed.
programs() { { find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null || true; } | sort -V | tail -n 1; }

install_server() {
    command -v apt-get >/dev/null || fail "no PostgreSQL here, and only Debian and Ubuntu are known: install PostgreSQL 14 or newer"
    say "no PostgreSQL on this machine: installing postgresql with apt"
    # Its package would make and start a cluster, which nothing here needs.
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        as_root mkdir -p /etc/postgresql-common
        printf 'create_main_cluster = false\n' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Options::=--force-confold --no-install-recommends postgresql >&2
}

# It gets its name last: one that was not finished is made anew.
make_cluster() {
    local new="$data.new" output
    say "making a cluster in $folder"
    mkdir -p "$folder"
    if [ "$(id -u)" -eq 0 ]; then chown postgres "$folder"; fi
    as_server rm -rf "$new"
    as_server "$bin/initdb" --pgdata="$new" --username=postgres --auth-local=trust --auth-host=scram-sha-256 \
        --encoding=UTF8 --locale=C --no-sync >/dev/null
    # For this machine's own name, and its own authority.
    as_server tee "$new/server.cnf" >/dev/null <<CONF
[req]
distinguished_name = name
[name]
[server]
subjectAltName = DNS:localhost
basicConstraints = critical, CA:FALSE
CONF
    output="$(as_server openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=localhost -extensions server \
        -config "$new/server.cnf" -keyout "$new/server.key" -out "$folder/server.crt" 2>&1)" ||
        fail "its certificate could not be made: $output"
    as_server chmod 600 "$new/server.key"
    as_server tee -a "$new/postgresql.conf" >/dev/null <<CONF
listen_addresses = 'localhost'
port = $port
ssl = on
ssl_cert_file = '$folder/server.crt'
unix_socket_directories = '$folder'
unix_socket_permissions = 0700
max_connections = 300
fsync = off
full_page_writes = off
max_wal_size = '256MB'
CONF
    as_server sed -i '1i local all locked scram-sha-256' "$new/pg_hba.conf"
    as_server mv "$new" "$data"
}

query() { as_server "$bin/psql" --host="$folder" --port="$port" --username=postgres --no-psqlrc --quiet --tuples-only --no-align --command="$1"; }
answers() { [ -S "$folder/.s.PGSQL.$port" ] && query 'SELECT 1' >/dev/null 2>&1; }

bin="$(programs)"
if [ -z "$bin" ]; then
    install_server
    bin="$(programs)"
fi
[ -n "$bin" ] || fail "postgresql was installed, but its programs are not in /usr/lib/postgresql"
if ! as_server test -e "$data/PG_VERSION"; then make_cluster; fi
if ! answers; then
    say "starting the server (log: $folder/log)"
    as_server "$bin/pg_ctl" start --pgdata="$data" --log="$folder/log" --wait --silent >&2 ||
        fail "it did not start: see $folder/log"
fi
if [ -z "$(query "SELECT 1 FROM pg_roles WHERE rolname = 'locked'")" ]; then
    query "CREATE ROLE locked LOGIN PASSWORD 'right'"
fi
for database in $(query "SELECT datname FROM pg_database WHERE datname LIKE 'test\_%'"); do
    query "DROP DATABASE IF EXISTS $database WITH (FORCE)"
done
say "a server answers ($(query 'SHOW server_version'))"
