#!/usr/bin/env bash
# Runs the Rust tests with nextest where it is installed, and with cargo's own runner otherwise.
set -euo pipefail
if cargo nextest --version >/dev/null 2>&1; then
    exec cargo nextest run --workspace --no-fail-fast "$@"
fi
# Tests on the real engine take turns, as nextest's configuration says. All do here: building them apart, so that only
# those would, takes longer.
exec cargo test --workspace --lib --bins --tests --no-fail-fast "$@" -- --test-threads=1
