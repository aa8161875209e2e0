#!/usr/bin/env bash
# Makes .venv: every package of constraints.txt, and this project as an editable install.
# PYTHON       the interpreter to build on (default: python3)
# TORCH_INDEX  a package index to take torch from, instead of the choice made in venv.sh
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3} VENV=.venv LOG=.venv/install.log STEPS=4
. tools/venv.sh

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
