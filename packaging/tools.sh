# What build and release share: the Cargo tools that pack, and what differs from build to build and must
# not. To be sourced after need.sh, with the checkout as working folder.
# shellcheck shell=bash

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
export CARGO_TARGET_DIR=$target PATH=$PATH:$target/packaging-tools/bin
# Of the commit, also for root in another user's checkout, which git does not read unless told to. Before 2.38 git
# does not take that from a flag; the time of a file in its place would make other bytes each time.
if [[ -z ${SOURCE_DATE_EPOCH-} && -e .git ]]; then
    SOURCE_DATE_EPOCH=$(git -c safe.directory='*' log -1 --format=%ct) ||
        die "git does not tell the time of the commit; its words are above"
fi
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(stat -c %Y CHANGELOG.md)}
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

# rpm_of BUILT PLACE ARGUMENT...: cargo-generate-rpm with the program and the documents that lie in BUILT, which
# is target/PLACE to it. It works on copies made now: it writes the time of each file that is older than
# SOURCE_DATE_EPOCH, and those of a checkout are of no meaning.
rpm_of() {
    local built=$1 copies=$target/rpm place=target/$2
    shift 2
    rm -rf "$copies"
    mkdir -p "$copies/$place"
    cp -R Cargo.toml CHANGELOG.md CONTRIBUTING.md LICENSE README.md docs packaging telegraf "$copies"
    cp -R "$built/telegraf-kvm" "$built/documents" "$copies/$place"
    (cd "$copies" && CARGO_TARGET_DIR=$copies/target cargo generate-rpm --auto-req /usr/lib/rpm/find-requires "$@")
    rm -rf "$copies"
}
