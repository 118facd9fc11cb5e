#!/usr/bin/env bash
# Gets the base images that generated Dockerfiles start from:
#
#   paas/base:bookworm   Debian 12
#   paas/python:3.11     the same with Python, pip and venv
#   paas/node:20         the same with Node.js and npm
#   paas/static:1        busybox alone
#
# They are pulled where a registry can be reached, and otherwise made from Debian's packages and Node.js's own, as the
# npm registry has them; those carry the label `paas.base-image=made`. What is there already stays as it is. The
# machine's own certificate authorities are trusted inside, so that package managers work where the network has one.
set -euo pipefail

suite=bookworm
registry=registry-1.docker.io
label=paas.base-image=made
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

say() { printf 'base images: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

exists() { docker image inspect "$1" >/dev/null 2>&1; }

has_registry() { timeout 4 bash -c "</dev/tcp/$registry/443" 2>/dev/null; }

need() {
    command -v "$1" >/dev/null && return
    command -v apt-get >/dev/null || fail "$1 is missing: without a registry, images are made on Debian or Ubuntu only"
    say "installing $2 with apt"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o DPkg::Lock::Timeout=300 \
        --no-install-recommends "$2" >&2
}

# The machine's own Debian mirrors of the suite, so that a private mirror is used where there is one. Debian's keys are
# named: not every Ubuntu trusts them by itself.
sources() {
    local lines keyring="[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    lines="$(apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI) $(COMPONENT)' 'Created-By: Packages' |
        awk -v suite="$suite" '$1 == "Debian" && ($2 == suite || index($2, suite "-") == 1) && $4 == "main" \
            { print $3, $2, $4 }')"
    if ! grep -q " $suite main" <<<"$lines"; then
        lines="http://deb.debian.org/debian $suite main
http://deb.debian.org/debian $suite-updates main
http://deb.debian.org/debian-security $suite-security main"
    fi
    sed "s|^|deb $keyring |" <<<"$lines"
}

# debian FILE PACKAGES: a minimal Debian with these packages, as a tar.
debian() {
    local file="$1" packages="$2" authority
    local options=(--quiet --variant=minbase --include="ca-certificates,$packages")
    options+=(--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*')
    options+=(--dpkgopt='path-exclude=/usr/share/locale/*')
    options+=(--customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin')
    for authority in /usr/local/share/ca-certificates/*.crt; do
        [ -e "$authority" ] || continue
        options+=(--customize-hook="copy-in $authority /usr/local/share/ca-certificates")
    done
    options+=(--customize-hook='chroot "$1" update-ca-certificates >/dev/null 2>&1')
    need mmdebstrap mmdebstrap
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || need /nonexistent debian-archive-keyring
    sources >"$work/sources"
    as_root mmdebstrap "${options[@]}" "$suite" "$file" "$work/sources" >&2
}

# import FILE NAME: a tar becomes an image.
import() {
    as_root cat "$1" | docker import \
        --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' \
        --change 'CMD ["/bin/sh"]' --change "LABEL $label" - "$2" >/dev/null
    as_root rm -f "$1"
}

make_base() {
    debian "$work/base.tar" tzdata
    import "$work/base.tar" "$1"
}

make_python() {
    debian "$work/python.tar" python3,python3-pip,python3-venv,python-is-python3
    import "$work/python.tar" "$1"
}

# newest PACKAGE MAJOR: the address of its newest version in the npm registry.
newest() {
    curl --fail --silent --show-error --location --max-time 60 "${npm_config_registry:-https://registry.npmjs.org}/$1" |
        python3 -c 'import json, sys
versions = json.load(sys.stdin)["versions"]
fitting = [name for name in versions if name.startswith(sys.argv[1] + ".") and "-" not in name]
print(versions[max(fitting, key=lambda name: [int(part) for part in name.split(".")])]["dist"]["tarball"])' "$2"
}

# unpack PACKAGE MAJOR FOLDER
unpack() {
    local address
    address="$(newest "$1" "$2")"
    mkdir -p "$3"
    curl --fail --silent --show-error --location --max-time 300 "$address" | tar --extract --gzip --strip-components=1 -C "$3"
}

# Node.js's own program, which its project puts into the npm registry too, on Debian with the libraries that it needs.
make_node() {
    local root="$work/node" major="${1##*:}" machine container
    case "$(uname -m)" in
        x86_64) machine=x64 ;;
        aarch64) machine=arm64 ;;
        *) fail "there is no Node.js for $(uname -m)" ;;
    esac
    need curl curl
    unpack "node-linux-$machine" "$major" "$root/package"
    unpack npm 10 "$root/usr/local/lib/node_modules/npm"
    mkdir -p "$root/usr/local/bin"
    mv "$root/package/bin/node" "$root/usr/local/bin/node"
    ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/local/bin/npm"
    ln -s ../lib/node_modules/npm/bin/npx-cli.js "$root/usr/local/bin/npx"
    debian "$work/node.tar" libstdc++6
    import "$work/node.tar" "$1-bare"
    container="$(docker create "$1-bare")"
    tar --create --owner=0 --group=0 -C "$root" usr | docker cp - "$container:/"
    docker commit "$container" "$1" >/dev/null
    docker rm "$container" >/dev/null
    docker image rm "$1-bare" >/dev/null
    docker run --rm --network none "$1" node --version >/dev/null || fail "Node.js does not run in $1"
    docker run --rm --network none "$1" npm --version >/dev/null || fail "npm does not run in $1"
}

# Without installing it: busybox-static and busybox exclude each other.
make_static() {
    local root="$work/static" applet
    mkdir -p "$root/bin" "$root/etc" "$root/tmp" "$work/busybox"
    chmod 1777 "$root/tmp"
    (cd "$work/busybox" && { apt-get download -qq busybox-static 2>/dev/null ||
        { as_root apt-get update -qq && apt-get download -qq busybox-static; }; }) >&2
    dpkg-deb --extract "$work"/busybox/*.deb "$work/busybox"
    cp "$work/busybox/bin/busybox" "$root/bin/busybox" 2>/dev/null ||
        cp "$work/busybox/usr/bin/busybox" "$root/bin/busybox"
    for applet in $("$root/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    tar --create --file "$work/static.tar" --owner=0 --group=0 -C "$root" .
    import "$work/static.tar" "$1"
}

# get NAME PUBLIC MAKER: the image is there, or is pulled, or is made.
get() {
    local name="$1" public="$2" maker="$3" started=$SECONDS
    if exists "$name"; then
        say "$name is there"
        return
    fi
    if $reachable && timeout 300 docker pull --quiet "$public" >/dev/null 2>&1; then
        docker tag "$public" "$name"
        say "$name pulled from $public ($((SECONDS - started)) s)"
        return
    fi
    say "$name: making it from Debian's packages"
    "$maker" "$name"
    say "$name made ($((SECONDS - started)) s)"
}

timeout 5 docker version >/dev/null 2>&1 || fail "no Docker engine answers: run $(dirname "$0")/engine.sh first"

reachable=false
if has_registry; then reachable=true; else say "no registry can be reached"; fi

get paas/base:$suite debian:$suite-slim make_base
get paas/python:3.11 python:3.11-slim make_python
get paas/static:1 busybox:1-musl make_static

get paas/node:20 node:20-slim make_node
