# The same verbs as .ci/run, one at a time.

default:
    @just --list

# Formats every file.
fmt:
    cargo fmt --all

# Clippy over everything, warnings as errors.
lint:
    cargo clippy --release --workspace --all-targets -- -D warnings

# The documentation of the source, private items too.
doc:
    RUSTDOCFLAGS=-Dwarnings cargo doc --release --no-deps --workspace --document-private-items

# Every test; arguments go to nextest.
test *ARGS:
    ./test {{ARGS}}

# Bans, licences and sources of the dependencies.
deny:
    cargo deny check bans licenses sources

# Five real nodes: one wiped, one rolled back, one damaged, one forked.
audit *ARGS:
    cargo run --release -p openfang-testnet -- run audit {{ARGS}}

# The main job on three real nodes.
demo *ARGS:
    cargo run --release -p openfang-testnet -- demo {{ARGS}}

# The measurements of docs/BENCHMARKS.md.
bench *ARGS:
    cargo run --release -p openfang-testnet -- bench {{ARGS}}

# Everything that must hold before a change lands.
ci:
    bash .ci/run
