#!/usr/bin/env bash
# From a clean checkout to caption-following video: sets up .venv, then makes the world, trains a VAE and a DiT, evaluates them and writes a page.
# Usage: bash scripts/demo.sh [--fast | --standard]     --fast goes through every stage in three minutes; its samples are not meant to be good.
# --standard is a longer recipe for up to two objects.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh core
exec .venv/bin/python scripts/demo.py "$@"
