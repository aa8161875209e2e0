# Making an environment with pip and torch in it; sourced by the scripts that install.
# VENV         where the environment is
# LOG          what pip said
# STEPS        how many steps will be announced
# TORCH_INDEX  a package index to take torch from, instead of the choice made below

CPU_INDEX=https://download.pytorch.org/whl/cpu

# say NUMBER TITLE: a step begins.
say() {
    printf '[%s/%s] %s\n' "$1" "$STEPS" "$2"
}

# Follow a command's output in one line that moves, where there is a terminal to show it on.
follow() {
    if [ -t 1 ]; then
        while IFS= read -r line; do printf '\r\033[K      %.100s' "$line"; done
        printf '\r\033[K'
    else
        cat >/dev/null
    fi
}

fail() {
    tail -n 20 "$LOG" >&2
    echo "installing failed; the lines above are the end of $LOG" >&2
    exit 1
}

# pip ARGUMENTS: quiet when all goes well.
pip() {
    "$VENV/bin/python" -m pip "$@" --progress-bar off 2>&1 | tee -a "$LOG" | follow || fail
}

has_nvidia_driver() {
    [ -e /proc/driver/nvidia/version ] || { command -v nvidia-smi && nvidia-smi -L; } >/dev/null 2>&1
}

# Whether the torch that pip would take brings CUDA's libraries along, several GB of them.
torch_brings_cuda() {
    local report
    report=$("$VENV/bin/python" -m pip install --dry-run --quiet --no-deps --ignore-installed --report - \
        -c constraints.txt torch 2>>"$LOG") || fail
    grep -q '"nvidia-' <<<"$report"
}

install_torch() {
    local index=${TORCH_INDEX:-}
    if [ -z "$index" ] && ! has_nvidia_driver && torch_brings_cuda; then
        index=$CPU_INDEX
        echo "      this machine has no NVIDIA driver: taking torch from $index"
    fi
    if [ -n "$index" ]; then
        pip install --no-deps --index-url "$index" -c constraints.txt torch
    fi
}
