# What a machine needs beside a Rust toolchain, installed when it is missing. Sourced by .ci/run
# and by test.
#
# The cargo tools go into a folder of their own, kept between runs: OPENFANG_TOOLS, or else
# openfang-tools in the user's cache folder.

# shellcheck shell=bash

OPENFANG_TOOLS="${OPENFANG_TOOLS:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/openfang-tools}"
export PATH="$OPENFANG_TOOLS/bin:$PATH"

say() { printf '== %s\n' "$*" >&2; }

# install PACKAGE...: of Debian's packages; fails, and says what to do, when it cannot.
install() {
    local as_root=()
    if ! command -v apt-get >/dev/null 2>&1; then
        say "install these yourself (named as Debian names them): $*"
        return 1
    fi
    if [[ "$(id -u)" -ne 0 ]]; then
        if ! command -v sudo >/dev/null 2>&1 || ! sudo -n true 2>/dev/null; then
            say "run this as root first: apt-get install $*"
            return 1
        fi
        as_root=(sudo -n)
    fi
    say "installing $*"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" </dev/null >&2
}

# need_apt COMMAND PACKAGE...: the packages, unless the command is there already.
need_apt() {
    if command -v "$1" >/dev/null 2>&1; then
        return 0
    fi
    say "$1 is missing"
    shift
    install "$@"
}

# need_cargo NAME VERSION [OPTION...]: cargo-NAME, unless one is there already.
need_cargo() {
    local name="cargo-$1" version="$2"
    shift 2
    if command -v "$name" >/dev/null 2>&1; then
        return 0
    fi
    say "$name is missing: building $version into $OPENFANG_TOOLS (once)"
    # A target folder of its own: the one of the house keeps one profile and one lock.
    CARGO_TARGET_DIR="$OPENFANG_TOOLS/target" \
        cargo install --locked --quiet --root "$OPENFANG_TOOLS" --version "$version" "$@" "$name" >&2
    rm -rf "$OPENFANG_TOOLS/target"
}

# A linker, and the C compiler for SQLite and the cryptography.
need_compilers() {
    if ! command -v cargo >/dev/null 2>&1; then
        say "cargo is missing: install Rust 1.95 or newer, from https://rustup.rs or your system"
        return 1
    fi
    need_apt cc gcc libc6-dev
}

# What the tour of the README is run with: a network namespace of its own, and curl.
need_tour() {
    need_apt ip iproute2
    need_apt unshare util-linux
    need_apt curl curl
}

# What makes system calls fail.
need_faults() {
    need_apt strace strace
}

need_nextest() { need_cargo nextest 0.9.151 --no-default-features --features default-no-update; }
need_deny() { need_cargo deny 0.20.2; }

# The components that a small toolchain leaves out.
need_component() {
    if cargo "$1" --version >/dev/null 2>&1; then
        return 0
    fi
    say "cargo $1 is missing: adding the component $2"
    rustup component add "$2" >&2
}

# Python with virtual environments, for the model; without it that one step is left out.
need_python() {
    need_apt python3 python3 python3-venv || return 1
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        say "python3 cannot make virtual environments"
        install python3-venv
    fi
}
