#!/usr/bin/env bash
# Builds .venv from requirements/cpu.lock, unless it was already built from this very lock. `make setup` calls it.
set -euo pipefail
cd "$(dirname "$0")/.."
lock=requirements/cpu.lock
stamp=.venv/built-from
torch_index=https://download.pytorch.org/whl/cpu

fail() { echo "setup: $*" >&2; exit 1; }

find_python() {
  local name version found=""
  for name in ${PYTHON:-python3.11 python3}; do
    if "$name" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
    version=$("$name" --version 2>/dev/null || echo "does not run")
    found+=" $name (${version%%$'\n'*})"
  done
  fail "Python 3.11 is needed, found$found; install it, or name it: make setup PYTHON=/path/to/python3.11"
}

pinned() { grep -E "^$1==" "$lock"; }

# The CPU build carries a local version (+cpu), which PyPI does not serve: with plain pip it is found only where pip's
# own settings offer it. No other torch can be taken by mistake.
install_torch() {
  .venv/bin/python -m pip install --quiet --no-deps --no-compile "$(pinned torch)" 2>.venv/torch.log && return
  .venv/bin/python -m pip install --quiet --no-deps --no-compile --index-url "$torch_index" "$(pinned torch)" && return
  cat .venv/torch.log >&2
  fail "$(pinned torch) was found neither on the default index nor on $torch_index"
}

# uv downloads and unpacks in parallel; pip does the same work several times slower where uv has no build.
install_rest() {
  if .venv/bin/python -m pip install --quiet "$(pinned uv)"; then
    VIRTUAL_ENV=.venv .venv/bin/uv pip install --quiet --no-deps -r "$lock" && return
    echo "setup: uv failed; trying pip" >&2
  fi
  .venv/bin/python -m pip install --quiet --no-deps --no-compile -r "$lock" || fail "the packages of $lock were not installed; see above"
}

[ "$(uname -sm)" = "Linux x86_64" ] || fail "the lock is for Linux x86_64, this is $(uname -sm); see README.md, Limits"
[[ $(ldconfig -p) == *libnuma.so.1* ]] || fail "vLLM's CPU build needs libnuma: apt-get install libnuma1"
python=$(find_python)
key=$({ "$python" --version; cat "$lock" "$0"; } | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ]; then
  exit 0
fi

echo "setup: building .venv from $lock ($(grep -c == "$lock") packages); once, a minute or two"
export DS_BUILD_OPS=0 PIP_DISABLE_PIP_VERSION_CHECK=1
.venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || "$python" -m venv --clear .venv
install_torch
install_rest
echo "$key" > "$stamp"
echo "setup: done in $SECONDS s"
