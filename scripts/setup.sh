#!/usr/bin/env bash
# Makes .venv beside this checkout with everything that is needed; a second start takes a moment. Usage: scripts/setup.sh [core|dev]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extra=${1:-core}
fail() { printf '\nset-up failed: %s\n  remedy: %s\n' "$1" "$2" >&2; exit 1; }

find_python() {
  for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

if [ -x .venv/bin/python ]; then
  python=.venv/bin/python
else
  python=$(find_python) || fail "no Python 3.11, 3.12 or 3.13 was found" "install one, or name it: PYTHON=/path/to/python3.12 bash scripts/demo.sh"
fi
# The stamp holds what the environment was made from: another checkout place, Python or list of packages makes it anew.
stamp=$( { pwd; "$python" --version; cat setup.cfg pyproject.toml constraints.txt; } | cksum | tr ' ' '-')
for made in "$extra" dev; do
  [ "$(cat ".venv/.kinora-$made" 2>/dev/null)" = "$stamp" ] && exit 0
done

echo "set-up: installing into .venv (once; a few minutes, about 2 GB of disk; more where PyTorch comes with CUDA)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if [ ! -x .venv/bin/python ]; then
  "$python" -m venv .venv >"$log" 2>&1 || { tail -n 5 "$log" >&2; rm -rf .venv
    fail "$python could not make a virtual environment" "on Debian or Ubuntu: apt-get install python3-venv"; }
fi
package="."
[ "$extra" = core ] || package=".[$extra]"
if ! .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable "$package" >"$log" 2>&1; then
  grep -iE 'error|no matching|could not' "$log" | tail -n 5 >&2 || tail -n 5 "$log" >&2
  fail "pip could not install the packages in constraints.txt" "check the network and the disk (df -h .), then run the same command again; what was downloaded is kept. If .venv itself is broken: rm -rf .venv"
fi
.venv/bin/python -c 'import torch, hydra, av' 2>"$log" || { tail -n 3 "$log" >&2; fail "the installed packages cannot be imported" "rm -rf .venv and run the same command again"; }
echo "$stamp" >".venv/.kinora-$extra"
