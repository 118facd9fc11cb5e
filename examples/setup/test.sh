#!/usr/bin/env bash
# Runs the Rust tests with nextest where it is installed, and with cargo's own runner otherwise.
set -euo pipefail
if cargo nextest --version >/dev/null 2>&1; then
    exec cargo nextest run --workspace --no-fail-fast "$@"
fi
# Tests on the real engine take turns: nextest's configuration says the same.
engine=(-p paas-docker -p paas-examples)
status=0
cargo test --workspace --exclude paas-docker --exclude paas-examples --lib --bins --tests --no-fail-fast "$@" || status=$?
cargo test "${engine[@]}" --lib --bins --tests --no-fail-fast "$@" -- --test-threads=1 || status=$?
exit "$status"
