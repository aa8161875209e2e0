#!/usr/bin/env bash
# Makes .venv: every package of constraints.txt, and this project as an editable install.
# PYTHON       the interpreter to build on (default: python3)
# TORCH_INDEX  a package index to take torch from, instead of the choice made below
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
CPU_INDEX=https://download.pytorch.org/whl/cpu
LOG=.venv/install.log

# say NUMBER TITLE: a step begins.
say() {
    printf '[%s/4] %s\n' "$1" "$2"
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
    .venv/bin/python -m pip "$@" --progress-bar off 2>&1 | tee -a "$LOG" | follow || fail
}

has_nvidia_driver() {
    [ -e /proc/driver/nvidia/version ] || { command -v nvidia-smi && nvidia-smi -L; } >/dev/null 2>&1
}

# Whether the torch that pip would take brings CUDA's libraries along, several GB of them.
torch_brings_cuda() {
    local report
    report=$(.venv/bin/python -m pip install --dry-run --quiet --no-deps --ignore-installed --report - \
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

if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "Twinfer needs Python 3.11 or later, and '$PYTHON' is not: make setup PYTHON=/path/to/python3.11" >&2
    exit 1
fi

say 1 "creating .venv with $("$PYTHON" --version)"
"$PYTHON" -m venv .venv
: >"$LOG"
say 2 "installing pip and setuptools"
pip install --upgrade -c constraints.txt pip setuptools
say 3 "choosing torch"
install_torch
say 4 "installing Twinfer and what it needs"
pip install --no-build-isolation -c constraints.txt -e '.[native,dev]'
echo "ready: make serve"
