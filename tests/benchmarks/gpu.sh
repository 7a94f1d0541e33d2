#!/bin/bash
# Checks and times everything on a GPU machine, without a network: phases that report as they end, 8 minutes in all from
# a cold kernel cache, first those that need few kernels. Each has seconds of its own; what it does not do in them is
# said, and left. A phase for which no time is left is skipped.
# Needs the environment that `make setup` builds (or PYTHON=...); writes to the folder OUT (default: gpu-report).
# DEVICE=cpu rehearses it in tiny sizes on Warp's CPU device; SLACK=5 gives each phase, and all, five times as long.
cd "$(dirname "$0")/../.." || exit 1
export PYTHON=${PYTHON:-.venv/bin/python} OUT=${OUT:-gpu-report} DEVICE=${DEVICE:-cuda} SLACK=${SLACK:-1}
export WARP_CACHE_PATH=${WARP_CACHE_PATH:-$OUT/warp-cache} METARL_TEST_DEVICE=$DEVICE CUBLAS_WORKSPACE_CONFIG=:4096:8
TOTAL=$((480 * SLACK))
mkdir -p "$OUT"
rm -rf "$OUT/runs" "$OUT/speed.jsonl" "$OUT/phases.txt" "$OUT/curves.png"

metarl() { "$PYTHON" -m metarl "$@"; }
train() { metarl train "$@" --device "$DEVICE" --physics warp --runs "$OUT/runs"; }
export -f metarl train
export few="--num-tasks 4 --num-envs 4 --episodes 4 --eval-interval 0 --iterations 2" run=$OUT/runs/small

report() { echo "-- $1: $2" | tee -a "$OUT/phases.txt"; }
phase() { # phase NAME SECONDS COMMAND
    local limit=$(($2 * SLACK)) left=$((TOTAL - SECONDS)) began=$SECONDS said=ok code
    [ "$left" -ge 5 ] || { report "$1" "skipped, no time is left"; return; }
    timeout -k 5 "$((limit < left ? limit : left))" bash -c "$3" >"$OUT/$1.txt" 2>&1
    code=$?
    [ "$code" -eq 0 ] || { said="exit code $code"; tail -n 3 "$OUT/$1.txt"; }
    [ "$code" -ne 124 ] || said="not done in its time"
    report "$1" "$said, $((SECONDS - began)) s, $SECONDS s in all"
}
gpu() { [ "$DEVICE" = cpu ] || phase "$@"; }

gpu card 10 'nvidia-smi'
phase doctor 20 'metarl doctor'
phase rl2 30 'metarl train bandit --learner rl2 --device $DEVICE --runs $OUT/runs $few --name rl2'
phase maml 30 'metarl train navigation --learner maml --device $DEVICE --runs $OUT/runs $few --name maml'
phase warmup 60 'metarl warmup half_cheetah_dir --device $DEVICE'
phase warm-again 20 'metarl warmup half_cheetah_dir --device $DEVICE | grep "were there already"'
if [ "$DEVICE" != cpu ]; then # on the other cores, beside the next ones
    phase warmup-rest 200 'metarl warmup ml10 ml1 ant_dir && metarl warmup --deterministic half_cheetah_dir ant_dir \
        humanoid_dir walker2d_rand_params swimmer_vel cartpole_mass' &
fi
phase train 60 'train half_cheetah_dir --learner maml $few --horizon 20 --name small'
phase resume 40 'train half_cheetah_dir --resume $run --iterations 3'
phase evaluate 40 'metarl evaluate $run --device $DEVICE --tasks 2 --pretrain-iterations 0'
phase plot 30 'metarl plot $run --out $OUT/curves.png && test -s $OUT/curves.png'
phase film 60 'metarl video $run && ls $run/videos'
gpu second-card 40 '[ "$(nvidia-smi -L | wc -l)" -gt 1 ] || { echo one card; exit; }
    DEVICE=cuda:1 train half_cheetah_dir --learner maml $few --horizon 20 --name second'
gpu out-of-memory 40 'train half_cheetah_dir --learner maml --num-tasks 1000 --num-envs 100000 --episodes 100000 \
    --eval-interval 0 --iterations 1 --name large && exit 1
    grep "^error: out of memory: start a run with lower" $OUT/out-of-memory.txt && [ "$(grep -c Traceback $OUT/out-of-memory.txt)" = 0 ]'
gpu learning 80 'train half_cheetah_dir --learner maml --preset gpu --iterations 20 --name dir'
wait
gpu speed 130 '$PYTHON tests/benchmarks/benchmark_gpu.py --out $OUT/speed.jsonl'
[ "$DEVICE" != cpu ] || phase speed 130 '$PYTHON tests/benchmarks/benchmark_gpu.py --device cpu --scale 0.001 \
    --only half-cheetah --out $OUT/speed.jsonl'
gpu collisions 60 'for physics in warp-sorted warp-culled; do
    $PYTHON tests/benchmarks/benchmark_gpu.py --only ML10 --physics $physics --out $OUT/speed.jsonl; done'
gpu physics 120 '$PYTHON -m pytest -n 0 -p no:benchmark tests/envs/test_warp.py'
gpu metaworld 90 '$PYTHON -m pytest -n 0 -p no:benchmark tests/envs/test_metaworld_warp.py'
! grep -qv ': ok' "$OUT/phases.txt"
