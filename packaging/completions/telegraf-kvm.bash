# bash completion for telegraf-kvm
_telegraf_kvm() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    case $before in
    --config)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        ;;
    --uri) mapfile -t COMPREPLY < <(compgen -W "qemu:///system qemu:///session test:///default" -- "$word") ;;
    --interval) mapfile -t COMPREPLY < <(compgen -W "10s 30s 1m" -- "$word") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "--config --uri --once --interval --check --json --sample-config --version --help" -- "$word") ;;
    esac
}
complete -F _telegraf_kvm telegraf-kvm
