"""Reading needs no jax: data sets are opened by people who have only numpy."""

from __future__ import annotations

import json
import subprocess
import sys

import epvf_data

READ = """
import sys, time
began = time.perf_counter()
for name in ("jax", "jaxlib", "flax", "optax", "orbax", "mujoco", "h5py", "matplotlib", "torch", "typer", "rich"):
    sys.modules[name] = None  # importing it raises
import json
import epvf_data
dataset = epvf_data.open(sys.argv[1])
arrays = {item.id: dataset.table(item.id).to_numpy() for item in dataset.architectures}
seconds = time.perf_counter() - began
problems = epvf_data.validate(sys.argv[1], deep=True)
assert sum(1 for batch in epvf_data.Loader(dataset.table(dataset.architectures[0].id), batch_size=16)) == 8
print(json.dumps([dataset.rows, sorted({len(array["params"]) for array in arrays.values()}), problems, seconds]))
"""


def test_reading_needs_no_jax(small):
    """And it begins at once: well under a second on a quiet machine, also the import."""
    command = [sys.executable, "-W", "error", "-c", READ, str(small)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    rows, lengths, problems, seconds = json.loads(process.stdout)
    assert (rows, lengths, problems) == (epvf_data.open(small).rows, [5, 121], [])
    assert seconds < 3
    print(f"{seconds:.2f} s")
