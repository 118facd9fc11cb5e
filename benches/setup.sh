#!/usr/bin/env bash
# Installs the peers that the suite measures against and that are missing, with apt. Running it again changes nothing.
set -euo pipefail

say() { printf 'benches: %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

missing=()
for wanted in nginx wrk npm; do
    command -v "$wanted" >/dev/null || missing+=("$wanted")
done

if [ "${#missing[@]}" -gt 0 ]; then
    command -v apt-get >/dev/null || { say "missing, and there is no apt to install it: ${missing[*]}"; exit 1; }
    say "installing ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi
