#!/usr/bin/env bash
# Runs the Rust tests with nextest where it is installed, and with cargo's own runner otherwise.
set -euo pipefail
if cargo nextest --version >/dev/null 2>&1; then
    exec cargo nextest run --workspace --no-fail-fast "$@"
fi
exec cargo test --workspace --lib --bins --tests --no-fail-fast "$@"
