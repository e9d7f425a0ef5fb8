#!/usr/bin/env bash
# Resolves pyproject.toml's pins (extras cpu and dev) into requirements/cpu.lock. `make lock` calls it.
set -euo pipefail
cd "$(dirname "$0")/.."

# torch's CPU build comes from pip's own links where the machine has them, else from PyTorch's CPU index.
if [ -n "${PIP_FIND_LINKS:-}" ]; then
  torch=(--find-links "$PIP_FIND_LINKS")
else
  torch=(--index https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match)
fi
.venv/bin/uv pip compile pyproject.toml --extra cpu --extra dev --overrides requirements/no-cuda.txt "${torch[@]}" \
  --python-version 3.11 --python-platform x86_64-manylinux_2_34 --no-annotate --no-header --quiet \
  --output-file requirements/cpu.lock "$@"
echo "requirements/cpu.lock: $(grep -c == requirements/cpu.lock) packages"
