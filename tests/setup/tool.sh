#!/usr/bin/env bash
# Prints the path of a Rust program of one exact version, building it into
# .work/tools if it is not there yet: `tool.sh CRATE VERSION PROGRAM [CARGO OPTION...]`.
set -euo pipefail
cd "$(dirname "$0")/../.."

crate=$1 version=$2 program=$3
shift 3
root="$PWD/.work/tools/$crate-$version"
if [ ! -x "$root/bin/$program" ]; then
    echo "setup: building $crate $version, once; this takes minutes" >&2
    cargo install --quiet --locked --root "$root" --target-dir "$root/target" \
        --version "$version" "$@" "$crate" >&2
    rm -rf "$root/target"
fi
echo "$root/bin/$program"
