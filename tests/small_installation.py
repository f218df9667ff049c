"""Runs every verb with the packages of the small installation alone, and prints what each did as JSON.

python tests/small_installation.py GOLDEN, in an empty folder. Where other packages are there, they are hidden.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import traceback
from pathlib import Path

HIDDEN = ("jax", "jaxlib", "flax", "optax", "orbax", "tensorstore", "mujoco", "scipy", "tensorboardX", "chex", "absl")
HIDDEN += (
    "pyarrow",
    "huggingface_hub",
    "matplotlib",
    "PIL",
    "av",
    "obstore",
    "pandas",
    "torch",
    "brax",
    "evosax",
    "mujoco_playground",
    "ml_dtypes",
)

# What each verb says here: None where it works, else what its one sentence has in it.
PLOT, TRAIN, S3 = (f"pip install 'epvf-data[{extra}]'" for extra in ("plot", "train", "s3"))
VERBS: list[tuple[str, str | None]] = [
    ("doctor", None),
    ("envs", None),
    ("critics", None),
    ("new-env mine", None),
    ("new-critic mine_critic.py", None),
    ("new-policy mine_policy.py", None),
    ("info a.zarr", None),
    ("info a.zarr --commits", None),
    ("info a.zarr --plot a.png", PLOT),
    ("plot a.zarr", PLOT),
    ("report a.zarr --out a.html", None),
    ("report a.zarr base --out b.html", "base does not exist"),
    ("validate a.zarr --deep", None),
    ("validate a.zarr --resimulate 2", TRAIN),
    ("diff a.zarr a.zarr", None),
    ("merge a.zarr --out merged.zarr", None),
    ("filter a.zarr --where return>-1e9 --out filtered.zarr", None),
    ("sample a.zarr --rows 3 --out sampled.zarr", None),
    ("split a.zarr", None),
    ("filter a.zarr --where architecture=='e363b298' --out one.zarr", None),
    ("withhold one.zarr --out few.zarr", None),
    ("compact merged.zarr", None),
    ("gc merged.zarr", None),
    ("push a.zarr pushed.zarr", None),
    ("pull pushed.zarr pulled.zarr", None),
    ("pull s3://nowhere/a.zarr afar.zarr", S3),
    ("verify a.zarr --signers none", "there is no"),
    ("cache", None),
    ("card merged.zarr", PLOT),
    ("export-policy a.zarr --row best", None),
    ("export-npz one.zarr", None),
    ("export-hdf5 a.zarr", None),
    ("import-hdf5 a.h5 --out back.zarr", None),
    ("import-policy base.safetensors --env cartpole --out again.safetensors", TRAIN),
    ("check-env mine.py:make", TRAIN),
    ("check-critic mine_critic.py:make", TRAIN),
    ("check-policy mine_policy.py:make", TRAIN),
    ("train-offline one.zarr --critic mine_critic.py:make", TRAIN),
    ("collect --env cartpole --envs 8", TRAIN),
    ("train-offline one.zarr", TRAIN),
    ("evaluate a.zarr", "is a data set, expected a run of train-offline"),
    ("compare a.zarr", "is a data set, expected a run of train-offline"),
    ("train-online --env cartpole", TRAIN),
    ("watch a.zarr", "is a data set, expected a run of train-online"),
    ("improve a.zarr", TRAIN),
    ("top a.zarr", TRAIN),
    ("score base.safetensors", TRAIN),
    ("render base.safetensors", TRAIN),
    ("reproduce fig1 --scale smoke", TRAIN),
    ("export-archive a.zarr archive", None),
    ("finalize whole.zarr a.zarr", "merge"),
    ("bench list", None),
    ("sign a.zarr --key none", "there is no key none"),
]


def run(words: str) -> dict[str, object]:
    """What a command did: its exit code, its lines on stderr, and whether it ended with a traceback."""
    from epvf_data.cli import main

    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["epvf-data", *words.split()]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            code = -1
    return {"words": words, "code": code, "out": out.getvalue(), "err": err.getvalue()}


if __name__ == "__main__":
    for name in HIDDEN:
        sys.modules[name] = None  # type: ignore[assignment]
    import epvf_data.errors

    shutil.copytree(sys.argv[1], "a.zarr")
    bases = Path(epvf_data.__file__).parent / "collectors" / "bases" / "cartpole"
    shutil.copy(bases / "generation-0044.safetensors", "base.safetensors")
    api = {}
    for name in epvf_data.__all__:
        try:
            getattr(epvf_data, name)
        except epvf_data.errors.MissingPackageError as error:
            api[name] = str(error)
    print(json.dumps({"file": epvf_data.__file__, "api": api, "done": [run(words) for words, _ in VERBS]}))
