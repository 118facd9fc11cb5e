#!/usr/bin/env bash
# Checks licences, banned crates and sources with cargo-deny, which is built once into the cache folder.
set -euo pipefail
# The core is free of engines, git, databases and servers: adapters bring those.
if cargo tree --package paas-core --edges normal --prefix none |
    grep -E '^(bollard|gix|sqlx|rusqlite|axum|reqwest|hyper|pyo3)( |-)' >&2; then
    printf 'deny: paas-core depends on what belongs into an adapter\n' >&2
    exit 1
fi

root="${XDG_CACHE_HOME:-$HOME/.cache}/paas/tools"
if ! command -v cargo-deny >/dev/null && [ ! -x "$root/bin/cargo-deny" ]; then
    printf 'deny: building cargo-deny, once\n' >&2
    CARGO_TARGET_DIR="$root/target" cargo install --quiet --locked --debug --root "$root" cargo-deny
    rm -rf "$root/target"
fi
PATH="$root/bin:$PATH"
# The advisory database needs the open internet: that check is left to those who have it.
exec cargo deny --log-level error check licenses bans sources
