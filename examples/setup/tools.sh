#!/usr/bin/env bash
# Installs what building and testing need and is missing, with apt. Running it again changes nothing.
set -euo pipefail

say() { printf 'tools: %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

missing=()
# want COMMAND PACKAGE
want() { command -v "$1" >/dev/null || missing+=("$2"); }

want cc build-essential
want make make
want mold mold
want git git
want curl curl
want python3 python3
want ip iproute2
# Tests mount a file system of their own, for which others than root need this.
[ "$(id -u)" -eq 0 ] || want fusermount3 fuse3
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)

# For tests of clocks that leap.
compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || missing+=(libfaketime)

[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)

command -v cargo >/dev/null || { say "there is no cargo: install Rust from https://rustup.rs first"; exit 1; }
# rustup's minimal profile has neither.
for component in rustfmt clippy; do
    cargo "${component#rust}" --version >/dev/null 2>&1 && continue
    command -v rustup >/dev/null || { say "there is no $component: install it beside cargo"; exit 1; }
    say "adding $component with rustup"
    rustup component add "$component"
done

if [ "${#missing[@]}" -gt 0 ]; then
    command -v apt-get >/dev/null || { say "missing, and there is no apt to install it: ${missing[*]}"; exit 1; }
    say "installing ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o DPkg::Lock::Timeout=300 \
        --no-install-recommends "${missing[@]}" >&2
fi
