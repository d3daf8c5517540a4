#!/usr/bin/env bash
# check_figures.sh SOURCES - README's tables of figures are those that bench/results/ makes.  77, a skipped test, where there is
# no python3.
set -euo pipefail
command -v python3 >/dev/null || { echo "skipped: no python3 here"; exit 77; }
export PYTHONDONTWRITEBYTECODE=1
exec python3 "$1/bench/readme.py" --check
