"""A job script for SLURM: an array of shards that keep what they made when they are stopped, and go on."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from epvf_data.errors import StoppedError

AT_ONCE = 32
WARNING = 120  # seconds before the time limit
TEMPLATE = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}%{at_once}         # the shards, and how many run at once
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00         # a shard that needs longer goes on where it was
##SBATCH --gres=gpu:1           # for --backend mjx: remove one #
#SBATCH --requeue               # after a node failed, too
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@{warning}     # so many seconds before the time limit

warned= task="${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"  # one task has the array's own SLURM_JOB_ID
{command} --shard "$SLURM_ARRAY_TASK_ID/{shards}" &
shard=$!
trap 'warned=1; kill -USR1 $shard' USR1
trap 'kill -TERM $shard' TERM
while kill -0 $shard 2>/dev/null; do wait $shard; done  # a signal ends a wait, not the shard
wait $shard; code=$?
case "$warned$code" in
  1{stopped} | 1{early}) scontrol requeue "$task"; exit 0 ;;  # stopped by the warning
esac
exit "$code"

# When all have ended:  {finalize}
# Shards that are missing then, 3 and 7 for example:  sbatch --array=3,7 THIS_FILE
"""


def program() -> str:
    """How a job calls this program: by its path, since a job may have another one."""
    found = shutil.which("epvf-data")
    return shlex.quote(found) if found else f"{shlex.quote(sys.executable)} -m epvf_data"


def script(words: Sequence[str], out: Path, shards: int, at_once: int) -> str:
    """The script. `words` are those of `collect`, the data set's folder among them."""
    place = shlex.quote(str(out))
    return TEMPLATE.format(
        name=shlex.quote(out.stem),
        last=shards - 1,
        at_once=at_once,
        warning=WARNING,
        command=f"{program()} {shlex.join(words)}",
        shards=shards,
        stopped=StoppedError.exit_code,
        early=128 + signal.SIGUSR1,  # it had not begun to listen
        finalize=f"{program()} finalize {place}",
    )
