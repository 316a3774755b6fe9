#!/usr/bin/env bash
# Sets up .venv and runs the linter and the tests (under ten minutes on two cores). Arguments go to pytest: scripts/test.sh -m slow
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh dev
# One thread per test process: two processes with two threads each only get in each other's way on two cores.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} WANDB_MODE=offline WANDB_SILENT=true
.venv/bin/ruff check .
exec .venv/bin/python -m pytest -n "${TEST_PROCESSES:-auto}" "$@"
