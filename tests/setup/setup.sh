#!/usr/bin/env bash
# Installs what building, testing and the demo need and this machine lacks, and
# says what. Does nothing, quickly, when all is there. For Debian and its kin, as
# root or with sudo; elsewhere it names what is missing and fails.
set -euo pipefail
cd "$(dirname "$0")/../.."

# What the compiler of RocksDB, its bindings, the demo and the tests call.
packages=(
    gcc g++ make pkg-config clang libclang-dev ca-certificates
    postgresql attr acl python3 python3-venv
    apache2-bin openssh-client openssh-server openssl iproute2
)
# A newer Node than Debian's brings its own npm.
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)
requirements=(tests/setup/reader-requirements.txt tests/setup/server-requirements.txt)
venv=.venv
azurite=.work/azurite
azurite_version=3.35.0
no_services=/usr/sbin/policy-rc.d
postgres_settings=/etc/postgresql-common/createcluster.d/cairn-setup.conf

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "not root and without sudo: run this as root once: $*"
    fi
}

missing_packages() {
    local package
    for package in "${packages[@]}"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
            echo "$package"
    done
}

install_packages() {
    command -v dpkg-query >/dev/null || fail "not a Debian: install by hand: ${packages[*]}"
    local missing
    mapfile -t missing < <(missing_packages)
    [ "${#missing[@]}" -gt 0 ] || return 0
    say "installing with apt: ${missing[*]}"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600)
    as_root "${apt[@]}" update
    case " ${missing[*]} " in
    *" postgresql "*)
        # Only the programs are wanted, not a server that starts with the machine.
        as_root mkdir -p "$(dirname "$postgres_settings")"
        echo 'create_main_cluster = false' | as_root tee "$postgres_settings" >/dev/null
        ;;
    esac
    # Nor one of ssh.
    local refuse_services=no
    [ -e "$no_services" ] || refuse_services=yes
    if [ "$refuse_services" = yes ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$no_services" >/dev/null
        as_root chmod 755 "$no_services"
    fi
    local status=0
    as_root "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null || status=$?
    [ ! -e "$postgres_settings" ] || as_root rm -f "$postgres_settings"
    [ "$refuse_services" = no ] || as_root rm -f "$no_services"
    case " ${missing[*]} " in
    *" openssh-server "*)
        ! command -v systemctl >/dev/null || as_root systemctl --quiet disable ssh || true
        ;;
    esac
    [ "$status" -eq 0 ] || fail "apt could not install: ${missing[*]}"
}

install_rust_components() {
    command -v cargo >/dev/null ||
        fail "no cargo in PATH: install the stable Rust toolchain with rustup first"
    local component wanted=()
    for component in fmt clippy; do
        cargo "$component" --version >/dev/null 2>&1 || wanted+=("${component/#fmt/rustfmt}")
    done
    [ "${#wanted[@]}" -gt 0 ] || return 0
    say "installing with rustup: ${wanted[*]}"
    rustup component add "${wanted[@]}"
}

# The packages of the independent reader and of the tests' servers, in a Python environment of
# their own.
install_python_packages() {
    cat "${requirements[@]}" | cmp -s - "$venv/installed.txt" && return 0
    say "installing into $venv: $(cat "${requirements[@]}" | grep -v '^#' | tr '\n' ' ')"
    rm -rf "$venv"
    /usr/bin/python3 -m venv "$venv"
    local options=()
    local file
    for file in "${requirements[@]}"; do options+=(-r "$file"); done
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${options[@]}"
    cat "${requirements[@]}" >"$venv/installed.txt"
}

# Microsoft's emulator of Azure Blob Storage, for the tests of remote targets.
install_azurite() {
    [ "$(cat "$azurite/installed.txt" 2>/dev/null)" != "$azurite_version" ] || return 0
    say "installing into $azurite with npm: azurite $azurite_version"
    rm -rf "$azurite"
    mkdir -p "$azurite"
    npm install --silent --no-audit --no-fund --no-save --no-package-lock --ignore-scripts \
        --prefix "$azurite" "azurite@$azurite_version"
    echo "$azurite_version" >"$azurite/installed.txt"
}

install_packages
install_rust_components
install_python_packages
install_azurite
