# Completion of droverctl in bash. What may stand somewhere is droverctl's to say (droverctl complete); here the words are
# only put together again, because bash takes '=' and ':' for the end of one.

_droverctl() {
        local -a words=()
        local i word joined=
        for ((i = 1; i <= COMP_CWORD; i++)); do
                word=${COMP_WORDS[i]}
                if [[ ${#words[@]} -gt 0 && ( $word == [=:]* || $joined ) ]]; then
                        words[-1]+=$word
                else
                        words+=("$word")
                fi
                joined=
                [[ $word == *[=:] && $i -lt $COMP_CWORD ]] && joined=yes
        done
        mapfile -t COMPREPLY < <(droverctl complete -- "${words[@]}" 2>/dev/null)
        # One candidate that goes on with a value: no blank behind it.
        [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
        # bash replaces what stands behind the last '=' or ':' only.
        word=${words[-1]}
        if [[ $word == *[=:]* ]]; then
                local before=${word%"${word##*[=:]}"}
                COMPREPLY=("${COMPREPLY[@]#"$before"}")
        fi
}
complete -o default -F _droverctl droverctl
