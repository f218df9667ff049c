#!/usr/bin/env bash
# Trains for a slice of GPU time and continues from the checkpoint in the next one.
#
#   examples/offline_gpu/train.sh WHEELS CONFIG RUN MINUTES [more arguments of train-online]
#   examples/offline_gpu/train.sh wheels ant-paper ant-paper-run 9
#
# RUN.tar.gz beside the run directory holds curves, policies and the checkpoint. When it is there and RUN is not, it is
# unpacked first, so that it is all that has to travel between the slices. Prints the steps per second of this slice,
# learning included.
set -euo pipefail

wheels=${1:?folder of wheels, or - where everything is installed}
config=${2:?a preset or TOML file}
run=${3:?run directory}
minutes=${4:?minutes of this slice}
shift 4

if [ "$wheels" != - ]; then
  site=$(mktemp -d)
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl
  export PYTHONPATH="$site:$(cd "$(dirname "$0")/../.." && pwd)${PYTHONPATH:+:$PYTHONPATH}"
fi
if [ ! -e "$run" ] && [ -e "$run.tar.gz" ]; then
  mkdir -p "$(dirname "$run")"
  tar -xzf "$run.tar.gz" -C "$(dirname "$run")"
fi
resume=()
before=0
if [ -e "$run/config.json" ]; then
  resume=(--resume)
  before=$(python3 -c 'import json,sys; lines=open(sys.argv[1]).read().splitlines(); l=json.loads(lines[-1]) if lines else {}; print(l.get("env_steps",0), l.get("seconds",0))' "$run/metrics.jsonl")
fi
# Five iterations to a log entry: θ is judged in one world, which would leave the GPU idle.
python3 -m epvf_data train-online --config "$config" --out "$run" --backend mjx --max-minutes "$minutes" \
  --set log_every=5 --json "${resume[@]}" "$@" | tee "$run.json"
python3 - "$run" $before <<'PYTHON'
import json, sys

lines = [json.loads(line) for line in open(f"{sys.argv[1]}/metrics.jsonl")]
steps, seconds = (float(word) for word in (sys.argv[2:] + ["0", "0"])[:2])
last = max(line["iteration"] for line in lines)
now = [line for line in lines if line["iteration"] == last]
done, spent = sum(line["env_steps"] for line in now), now[0]["seconds"]
warm = [line for line in lines if line["seed"] == now[0]["seed"]][-20:]
rate = (warm[-1]["env_steps"] - warm[0]["env_steps"]) / max(warm[-1]["seconds"] - warm[0]["seconds"], 1e-9)
print(json.dumps({
    "env_steps": done,
    "slice_env_steps_per_second": round((done - steps * len(now)) / max(spent - seconds, 1e-9)),
    "env_steps_per_second": round(rate * len(now)),
    "paper": 3_000_000,
    "return_perturbed": now[0]["return_perturbed"],
    "return_unperturbed": now[0]["return_unperturbed"],
}))
PYTHON
tar -czf "$run.tar.gz" -C "$(dirname "$run")" "$(basename "$run")"
