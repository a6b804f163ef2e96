#!/usr/bin/env bash
# Runs every fuzz target for FUZZ_SECONDS (60) each; stops at the first finding.
# Needs a nightly toolchain, which it installs through rustup if there is none.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${FUZZ_SECONDS:-60}
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "setup: installing with rustup: nightly" >&2
    rustup toolchain install nightly --profile minimal
fi
cargo_fuzz=$(tests/setup/tool.sh cargo-fuzz 0.13.2 cargo-fuzz)
for target in $("$cargo_fuzz" list); do
    echo "fuzz: $target for $seconds s"
    cargo +nightly "$cargo_fuzz" run "$target" -- -max_total_time="$seconds" 2>&1
done
