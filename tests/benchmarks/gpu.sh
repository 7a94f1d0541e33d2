#!/bin/bash
# Checks and times everything on a GPU machine, in one go of under 10 minutes, without a network.
# Needs the environment that `make setup` builds (or PYTHON=...); writes to the folder OUT (default: gpu-report).
cd "$(dirname "$0")/../.." || exit 1
PYTHON=${PYTHON:-.venv/bin/python}
OUT=${OUT:-gpu-report}
export WARP_CACHE_PATH=${WARP_CACHE_PATH:-$OUT/warp-cache} METARL_TEST_DEVICE=cuda CUBLAS_WORKSPACE_CONFIG=:4096:8
mkdir -p "$OUT"
rm -rf "$OUT/runs" "$OUT/speed.jsonl"
nvidia-smi | tee "$OUT/nvidia-smi.txt"
failed=0
step() { # step NAME SECONDS COMMAND...
    local name=$1 limit=$2
    shift 2
    echo "== $name"
    timeout "$limit" "$@" 2>&1 | tee "$OUT/$name.txt"
    local code=${PIPESTATUS[0]}
    [ "$code" -eq 0 ] || { echo "== $name: exit code $code"; failed=1; }
}
step physics 190 "$PYTHON" -m pytest -n 0 tests/envs/test_warp.py
step metaworld 90 "$PYTHON" -m pytest -n 0 tests/envs/test_metaworld_warp.py
step speed 180 "$PYTHON" tests/benchmarks/benchmark_gpu.py --out "$OUT/speed.jsonl"
step rl2 20 "$PYTHON" -m metarl train bandit --device cuda --iterations 2 --runs "$OUT/runs" --name rl2
step learning 110 "$PYTHON" -m metarl train half_cheetah_dir --preset gpu --device cuda --iterations 20 --runs "$OUT/runs" --name dir
exit $failed
