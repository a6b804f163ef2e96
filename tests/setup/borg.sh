#!/usr/bin/env bash
# Prints the path of Borg of one exact version from PyPI, building it into
# .work/tools if it is not there yet: `borg.sh VERSION`.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=$1
root="$PWD/.work/tools/borg-$version"
# What its extensions are compiled against.
packages=(gcc pkg-config python3-dev python3-venv libacl1-dev libssl-dev liblz4-dev libzstd-dev libxxhash-dev)

if [ ! -x "$root/bin/borg" ]; then
    echo "setup: building Borg $version from PyPI, once" >&2
    become=()
    [ "$(id -u)" -eq 0 ] || become=(sudo)
    apt=("${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600)
    there=$(dpkg-query -W -f '${db:Status-Status}\n' "${packages[@]}" 2>/dev/null | grep -cx installed || true)
    if [ "$there" -lt "${#packages[@]}" ]; then
        "${apt[@]}" update
        "${apt[@]}" install -y --no-install-recommends "${packages[@]}" >/dev/null
    fi
    rm -rf "$root"
    /usr/bin/python3 -m venv "$root"
    if ! "$root/bin/pip" install --quiet --disable-pip-version-check "borgbackup==$version" >&2; then
        rm -rf "$root"
        exit 1
    fi
fi
echo "$root/bin/borg"
