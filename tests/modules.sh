# What tests/run and tests/matrix/run know of the test crates and their modules. To be sourced, in
# the checkout's folder. A crate is a folder of tests/ with a main.rs.
# shellcheck shell=bash

# Whether tests/ has a crate of this name.
is_crate() {
    [[ -e tests/$1/main.rs ]]
}

# The crate that has tests in a module of this name; fails where none has.
crate_of() {
    local path crate
    for path in tests/*/"$1".rs tests/*/"$1"/mod.rs; do
        crate=${path#tests/}
        crate=${crate%%/*}
        if [[ -e $path ]] && is_crate "$crate" && grep -rq '#\[test\]' "${path%/mod.rs}"; then
            echo "$crate"
            return
        fi
    done
    return 1
}

# The full names of all tests of these crates, each MODULE::...::FUNCTION.
tests_in() {
    cargo test -q --locked "${@/#/--test=}" -- --list | sed -n 's/: test$//p'
}

# Of such names, those in one of these modules.
in_modules() {
    awk -F :: -v modules=" $* " 'index(modules, " " $1 " ")'
}
