#!/usr/bin/env bash
# Makes sure that a Docker engine answers: installs Debian's or Ubuntu's `docker.io` if there is none, starts it if
# it does not run, and waits until it answers. Running it again changes nothing.
#
#   ENGINE_WAIT_SECONDS   how long a started engine may take to answer (60)
set -euo pipefail

wait_seconds="${ENGINE_WAIT_SECONDS:-60}"
socket=/var/run/docker.sock
log_file=/var/log/dockerd.log

say() { printf 'engine: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

answers() { command -v docker >/dev/null && timeout 5 docker version >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

wait_until_it_answers() {
    local until=$((SECONDS + wait_seconds))
    while [ "$SECONDS" -lt "$until" ]; do
        if answers; then return 0; fi
        # It runs, but is not this user's to talk to.
        if [ "$(id -u)" -ne 0 ] && [ -S "$socket" ] && [ ! -w "$socket" ]; then
            say "giving $(id -un) the engine's socket until the engine restarts (as good as root's rights)"
            as_root chown "$(id -un)" "$socket"
        fi
        sleep 0.2
    done
    return 1
}

install_engine() {
    command -v apt-get >/dev/null ||
        fail "no Docker engine here, and only Debian and Ubuntu are known: install Docker Engine 20.10 or newer"
    say "no Docker engine on this machine: installing docker.io with apt"
    # Before its first start, so that apps outlive a restart of the engine from the first day.
    if [ ! -e /etc/docker/daemon.json ]; then
        as_root mkdir -p /etc/docker
        printf '{ "live-restore": true }\n' | as_root tee /etc/docker/daemon.json >/dev/null
    fi
    as_root apt-get update -qq
    local packages=(docker.io)
    # Newer releases keep the command line in a package of its own.
    if apt-cache show docker-cli >/dev/null 2>&1; then packages+=(docker-cli); fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o DPkg::Lock::Timeout=300 \
        --no-install-recommends "${packages[@]}" >&2
}

has_live_restore() { as_root grep -qs '"live-restore"' /etc/docker/daemon.json; }

start_engine() {
    if [ -d /run/systemd/system ] && systemctl cat docker.service >/dev/null 2>&1; then
        say "starting the Docker engine with systemd"
        as_root systemctl enable --now docker.service >&2 && return
        say "systemd could not: see 'journalctl -u docker'"
    fi
    local options=()
    # Given both in its file and on its command line, an option stops the engine from starting.
    if ! has_live_restore; then options+=(--live-restore); fi
    say "starting the Docker engine in the background (log: $log_file, process id: /var/run/docker.pid)"
    # A session of its own: it outlives this script and the terminal.
    as_root setsid --fork sh -c 'exec dockerd "$@" >>"$0" 2>&1 </dev/null' "$log_file" "${options[@]}"
}

if answers; then
    say "a Docker engine answers (version $(docker version --format '{{.Server.Version}}'))"
    exit 0
fi
if [ -n "${DOCKER_HOST:-}" ]; then
    fail "DOCKER_HOST is set to $DOCKER_HOST, but no engine answers there: start that one, or unset DOCKER_HOST"
fi
if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
    fail "no Docker engine answers; run this as root, or install sudo"
fi

if ! command -v docker >/dev/null || { ! command -v dockerd >/dev/null && [ ! -x /usr/sbin/dockerd ]; }; then
    install_engine
fi
PATH="$PATH:/usr/sbin:/sbin"
if ! as_root test -S "$socket" || ! as_root docker version >/dev/null 2>&1; then start_engine; fi
if ! wait_until_it_answers; then
    as_root tail -n 20 "$log_file" >&2 2>/dev/null || true
    fail "the Docker engine did not answer within $wait_seconds s"
fi
say "the Docker engine answers (version $(docker version --format '{{.Server.Version}}'))"
