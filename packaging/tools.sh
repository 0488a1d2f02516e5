# What build and release share: the Cargo tools that pack, and what differs from build to build and must
# not. To be sourced after need.sh, with the checkout as working folder.
# shellcheck shell=bash

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
export CARGO_TARGET_DIR=$target PATH=$PATH:$target/packaging-tools/bin
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH LC_ALL=C
umask 022

# cargo_tool NAME VERSION: builds it where it is missing.
cargo_tool() {
    command -v "$1" >/dev/null || (
        echo "building $1 $2 (some minutes, once)" >&2
        # Its own flags: nothing of ours concerns it.
        unset CARGO_TARGET_DIR RUSTFLAGS
        cargo install --quiet --locked --root "$target/packaging-tools" "$1@$2"
    ) || die "cargo install could not build $1; its words are above"
}

want_cargo_deb() {
    cargo_tool cargo-deb 3.8.0
}

want_cargo_generate_rpm() {
    cargo_tool cargo-generate-rpm 0.21.1
}
