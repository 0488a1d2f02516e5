# What quickstart, tests/run and .ci/run share: find out what is missing, install it by apt or dnf.
# To be sourced. Every tool is looked up on the PATH, so that tests can put stand-ins there.
# shellcheck shell=bash

# Ends with one clear sentence.
die() {
    echo "$me: $*" >&2
    exit 1
}

missing=()

# want APT_PACKAGE DNF_PACKAGE TEST...: notes the package as missing unless TEST succeeds.
want() {
    local package=$1
    [[ $(package_manager) != dnf ]] || package=$2
    shift 2
    if "$@" >/dev/null 2>&1; then return; fi
    # One package may stand for several programs.
    [[ " ${missing[*]} " == *" $package "* ]] || missing+=("$package")
}

package_manager() {
    local manager
    for manager in apt-get dnf; do
        if command -v "$manager" >/dev/null; then
            echo "$manager"
            return
        fi
    done
}

# The words before a command that root's rights are needed for.
privilege() {
    if [[ $(id -u) != 0 ]]; then echo "sudo"; fi
}

# Installs what was missing and says so; nothing missing, nothing done.
install_missing() {
    if ((${#missing[@]} == 0)); then return; fi
    local manager sudo names="${missing[*]}"
    manager=$(package_manager)
    [[ -n $manager ]] ||
        die "these are missing, and there is neither apt-get nor dnf to install them by (Debian's names): $names"
    sudo=$(privilege)
    [[ -z $sudo ]] || command -v sudo >/dev/null ||
        die "installing needs root or sudo; as root: $manager install $names"
    echo "installing: $names"
    if [[ $manager == apt-get ]]; then
        refresh_lists
        # shellcheck disable=SC2086
        without_services $sudo env DEBIAN_FRONTEND=noninteractive \
            apt-get -q -y -o DPkg::Lock::Timeout=$lock_timeout \
            install --no-install-recommends "${missing[@]}" >/dev/null ||
            die "apt-get could not install these; its words are above: $names"
    else
        # shellcheck disable=SC2086
        $sudo dnf -q -y install "${missing[@]}" ||
            die "dnf could not install these; its words are above: $names"
    fi
    missing=()
}

# How long, in seconds, to wait for another apt that holds a lock: a new machine updates itself first.
lock_timeout=600

# Debian's lists of packages, once a run: a new machine has none, and an old one names files that are gone.
refresh_lists() {
    if [[ $(package_manager) != apt-get || -n ${refreshed-} ]]; then return; fi
    refreshed=1
    local said until=$((SECONDS + lock_timeout))
    # DPkg::Lock::Timeout is for dpkg's lock; for that of the lists apt-get does not wait.
    while ! said=$($(privilege) apt-get -q update 2>&1 >/dev/null); do
        if [[ $said != *"Could not get lock"* ]] || ((SECONDS >= until)); then
            # One of many sources may be away; the installation will tell.
            echo "$said" >&2
            return
        fi
        sleep 2
    done
}

# Runs an installation during which no package starts its service (Debian's policy-rc.d): a daemon
# that nobody asked for must not stay behind a test run. A policy that is there already is kept.
without_services() {
    local policy=/usr/sbin/policy-rc.d sudo
    if [[ -e $policy ]]; then
        "$@"
        return
    fi
    sudo=$(privilege)
    # In a shell of its own, so that it is removed after Ctrl-C, too, and the caller's traps stay.
    # shellcheck disable=SC2064,SC2086
    (
        trap "$sudo rm -f $policy" EXIT
        printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null && $sudo chmod 755 $policy
        "$@"
    )
}

# Does the package manager know this package?
known_package() {
    case $(package_manager) in
    apt-get) [[ $(apt-cache policy "$1" 2>/dev/null) == *"Candidate: "[0-9]* ]] ;;
    dnf) dnf -q info "$1" >/dev/null 2>&1 ;;
    *) return 1 ;;
    esac
}

# at_least HAVE WANTED: compares dotted versions.
at_least() {
    printf '%s\n%s\n' "$2" "$1" | sort -VC
}

# A Rust toolchain of at least the version in Cargo.toml; needs the checkout as working folder.
check_rust() {
    local needed have how="get it by rustup, https://rustup.rs"
    needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    command -v cargo >/dev/null ||
        die "there is no cargo on the PATH: building needs Rust $needed or newer; $how"
    have=$(cargo --version | sed 's/^cargo \([0-9.]*\).*/\1/')
    at_least "$have" "$needed" ||
        die "the cargo on the PATH is $have: building needs Rust $needed or newer; $how"
}

# Makes Cargo build the checkout, the working folder, without a path of this machine in the program:
# by flags for rustc, of which the last that fits a path holds. CARGO_TARGET_DIR must be absolute. Not
# in RUSTFLAGS, where a space in a path would end it. (Cargo's trim-paths is refused by stable Cargo.)
leave_paths_out() {
    local home=${CARGO_HOME:-$HOME/.cargo} folder flags
    [[ $home == /* ]] || home=$PWD/$home
    read -ra flags <<<"${RUSTFLAGS-}"
    flags+=("--remap-path-prefix=$(pwd -P)=telegraf-kvm" "--remap-path-prefix=$CARGO_TARGET_DIR=target"
        "--remap-path-prefix=$home=cargo")
    # The names of these folders tell where the crates came from; there are none before the first fetch.
    cargo fetch --quiet --locked
    for folder in "$home"/registry/src/*; do
        flags+=("--remap-path-prefix=$folder=crates")
    done
    CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && printf %s "${flags[*]}")
    export CARGO_ENCODED_RUSTFLAGS
}

# What building needs: a C compiler (the linker), pkg-config, libvirt's headers.
want_build_tools() {
    want gcc gcc command -v cc
    want libc6-dev glibc-devel has_header stdlib.h
    want pkg-config pkgconf-pkg-config command -v pkg-config
    want libvirt-dev libvirt-devel has_header libvirt/libvirt.h
}

has_header() {
    cc -E - <<<"#include <$1>" >/dev/null 2>&1
}
