# bash completion for telegraf-kvm
_telegraf_kvm() {
    # To bash ":" and "=" separate words (COMP_WORDBREAKS), in a URI they do not: what is between the blanks is taken.
    local line=${COMP_LINE:0:COMP_POINT} words reply
    local word=${line##*[[:space:]]}
    read -ra words <<<"${line%"$word"}"
    # An empty array has no last word: bash would complain.
    local before=
    ((${#words[@]} == 0)) || before=${words[-1]}
    if [[ $word == --*=* ]]; then
        before=${word%%=*} word=${word#*=}
    fi
    COMPREPLY=()
    case $before in
    --config) compopt -o default ;;
    --uri)
        # bash replaces the text after the last colon, and all of a quoted word.
        local whole=${word#[\"\']} kept=
        [[ $whole != "$word" || $COMP_WORDBREAKS != *:* || $whole != *:* ]] || kept=${whole%:*}:
        while read -r reply; do
            COMPREPLY+=("${reply#"$kept"}")
        done < <(compgen -W "qemu:///system qemu:///session test:///default" -- "$whole")
        ;;
    --interval) mapfile -t COMPREPLY < <(compgen -W "10s 30s 1m" -- "$word") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "--config --uri --once --interval --check --json --sample-config --version --help" -- "$word") ;;
    esac
}
complete -F _telegraf_kvm telegraf-kvm
