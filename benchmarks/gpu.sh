#!/usr/bin/env bash
# Every GPU measurement (benchmarks/gpu.py) on a machine that may have no network and lack packages.
# Usage: [WHEELS=dir] [DATA=dir] [PYTHON=python3] benchmarks/gpu.sh [options of gpu.py]
# WHEELS: a folder of wheels that the machine's Python lacks; they go into a new environment that sees the packages that are there.
# DATA: a converted dataset (python benchmarks/gpu.py --prepare DIR makes DIR/dataset).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
[ -z "${DATA:-}" ] || export DATA
if [ -n "${WHEELS:-}" ]; then
  place=$(mktemp -d)
  trap 'rm -rf "$place"' EXIT
  "$python" -m venv --without-pip --system-site-packages "$place/env"
  # The packages of the Python that is named are seen, where it is itself an environment too.
  seen=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  own=$("$place/env/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  echo "$seen" > "$own/seen.pth"
  "$python" -m pip install --quiet --no-index --find-links "$WHEELS" --no-deps --no-compile --no-cache-dir --target "$own" "$WHEELS"/*.whl
  python=$place/env/bin/python
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
"$python" benchmarks/gpu.py "$@"
