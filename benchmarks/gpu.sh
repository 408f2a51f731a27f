#!/usr/bin/env bash
# Check every CUDA path of resnet-cli on this machine and report PASS, FAIL or SKIP for each, with the key figures.
#
#   benchmarks/gpu.sh            all checks that fit in the time limit, the most important first
#   benchmarks/gpu.sh NAME ...   only these
#   benchmarks/gpu.sh --list     their names
#
# Without a GPU the checks that can run on a CPU do, with small models.
#
#   PYTHON   interpreter with the dependencies [default: the checkout's .venv, else python3]
#   LIMIT_S  seconds for all checks together [default: 520]
#   OUT      directory for gpu.log (all output) and gpu.json (all figures) [default: a new one in the temporary directory]
#   DEVICE   cpu: do not use the GPU
#   MARK     tests that the check `pytest_gpu` runs [default: gpu]
#
# Exit codes: 0 all passed or skipped, 1 a check failed, 2 bad usage.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ -z ${PYTHON:-} ]]; then
    PYTHON=python3
    [[ ! -x .venv/bin/python ]] || PYTHON=$PWD/.venv/bin/python
fi
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
OUT=${OUT:-$(mktemp -d "${TMPDIR:-/tmp}/resnet-cli-gpu.XXXXXX")}
mkdir -p "$OUT"
export OUT WORK LIMIT_S="${LIMIT_S:-520}"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
export XDG_CACHE_HOME="$WORK/cache" # neither device peaks nor datasets of earlier runs
[[ ${DEVICE:-} != cpu ]] || export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # threads disturb each other on a busy CPU
"$PYTHON" benchmarks/gpu.py "$@"
