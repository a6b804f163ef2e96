#!/usr/bin/env bash
# Runs every fuzz target, or those named in FUZZ_TARGETS, for FUZZ_SECONDS (60) each; stops at the
# first finding. Needs a nightly toolchain, which it installs through rustup if there is none.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${FUZZ_SECONDS:-60}
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "setup: installing with rustup: nightly" >&2
    rustup toolchain install nightly --profile minimal
fi
cargo_fuzz=$(tests/setup/tool.sh cargo-fuzz 0.13.2 cargo-fuzz)
PATH="$(dirname "$cargo_fuzz"):$PATH"
cargo +nightly fuzz build
for target in ${FUZZ_TARGETS:-$(cargo +nightly fuzz list)}; do
    inputs=("fuzz/corpus/$target")
    mkdir -p "${inputs[0]}"
    for folder in "fuzz/seeds/$target" "fuzz/regressions/$target"; do
        [ ! -d "$folder" ] || inputs+=("$folder")
    done
    echo "fuzz: $target for $seconds s"
    # C code is not instrumented, but what it allocates is counted: no decoder needs 256 MB.
    cargo +nightly fuzz run "$target" "${inputs[@]}" -- -max_total_time="$seconds" \
        -max_len=65536 -rss_limit_mb=1024 -malloc_limit_mb=256 -timeout=25 2>&1
done
