# fish completion for telegraf-kvm
complete -c telegraf-kvm -f
complete -c telegraf-kvm -l config -r -F -d "the configuration (TOML)"
complete -c telegraf-kvm -l uri -x -a "qemu:///system qemu:///session test:///default" -d "the libvirt to connect to, always read-only"
complete -c telegraf-kvm -l once -d "gather once and exit"
complete -c telegraf-kvm -l interval -x -a "10s 30s 1m" -d "gather every DURATION, the first time at once"
complete -c telegraf-kvm -l check -d "validate the configuration, gather without writing, say what was found, and exit"
complete -c telegraf-kvm -l json -d "with --check: as one JSON document"
complete -c telegraf-kvm -l sample-config -d "print the commented sample of the configuration and exit"
complete -c telegraf-kvm -s V -l version -d "print the version and exit"
complete -c telegraf-kvm -s h -l help -d "print the help and exit"
