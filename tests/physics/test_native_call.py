"""The custom call that steps MuJoCo C inside XLA: its records, its errors, many models and threads at once."""

import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from epvf_data import envs
from epvf_data.errors import BackendError, ConfigError
from epvf_data.physics import native
from epvf_data.physics.play import play
from epvf_data.policies.spec import PolicySpec
from epvf_data.rollout import resolve_backend, rollout

SOURCE = Path(native.__file__).with_name("mujoco_step.c")
COMPILER = shutil.which("cc") or shutil.which("gcc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")
ANT = envs.make("ant").with_horizon(20)
SPEC = PolicySpec(34, 8, (4,))

# Our record and field, and the same of xla/ffi/api/c_api.h.
RECORDS = {
    ("Extension", "next"): "XLA_FFI_Extension_Base.next",
    ("Version", "minor"): "XLA_FFI_Api_Version.minor_version",
    ("Metadata", "version"): "XLA_FFI_Metadata.api_version",
    ("Metadata", "traits"): "XLA_FFI_Metadata.traits",
    ("MetadataExtension", "metadata"): "XLA_FFI_Metadata_Extension.metadata",
    ("ErrorArguments", "message"): "XLA_FFI_Error_Create_Args.message",
    ("ErrorArguments", "code"): "XLA_FFI_Error_Create_Args.errc",
    ("Api", "create_error"): "XLA_FFI_Api.XLA_FFI_Error_Create",
    ("Buffer", "data"): "XLA_FFI_Buffer.data",
    ("Buffer", "rank"): "XLA_FFI_Buffer.rank",
    ("Buffer", "dims"): "XLA_FFI_Buffer.dims",
    ("Scalar", "value"): "XLA_FFI_Scalar.value",
    ("Span", "length"): "XLA_FFI_ByteSpan.len",
    ("List", "items"): "XLA_FFI_Args.args",
    ("Attributes", "names"): "XLA_FFI_Attrs.names",
    ("Attributes", "items"): "XLA_FFI_Attrs.attrs",
    ("Call", "api"): "XLA_FFI_CallFrame.api",
    ("Call", "stage"): "XLA_FFI_CallFrame.stage",
    ("Call", "arguments"): "XLA_FFI_CallFrame.args",
    ("Call", "results"): "XLA_FFI_CallFrame.rets",
    ("Call", "attributes"): "XLA_FFI_CallFrame.attrs",
}


@needs_compiler
def test_the_records_of_the_interface_are_those_of_the_installed_jaxlib(tmp_path):
    def offsets(include, names):
        places = ", ".join(f"offsetof({record}, {field})" for record, field in names)
        text = f"#include <stddef.h>\n#include <stdio.h>\n{include}\nint main(void) {{ size_t a[] = {{{places}}};"
        text += 'for (size_t i = 0; i < sizeof a / sizeof *a; i++) printf("%zu ", a[i]); return 0; }\n'
        (tmp_path / "offsets.c").write_text(text)
        command = [COMPILER, "-std=c11", "-w", f"-I{jax.ffi.include_dir()}", "-o", tmp_path / "offsets"]
        subprocess.run([*command, tmp_path / "offsets.c"], check=True)
        return subprocess.run([tmp_path / "offsets"], check=True, capture_output=True, text=True).stdout.split()

    ours = offsets(f'#include "{SOURCE}"', RECORDS)
    header = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    older = "XLA_FFI_Extension_Base" in header.read_text()  # jaxlib 0.12 calls it otherwise
    named = [name if older else name.replace("Extension_Base", "InternalExtension") for name in RECORDS.values()]
    theirs = offsets('#include "xla/ffi/api/c_api.h"', [name.split(".") for name in named])
    assert dict(zip(RECORDS, ours, strict=True)) == dict(zip(RECORDS, theirs, strict=True))
    assert len(ours) == len(RECORDS)


def test_an_error_of_mujoco_is_one_sentence_and_the_process_lives():
    small = replace(
        envs.make("ant").with_horizon(200), xml=ANT.xml.replace("</mujoco>", '<size memory="16K"/></mujoco>')
    )
    with pytest.raises(BackendError, match="MuJoCo stopped in environment ant: .*out of memory.*increase <size"):
        play(small, SPEC, np.zeros((20, SPEC.size), np.float32), np.zeros((20, 2), np.uint32), backend="native")
    none = replace(ANT, xml=ANT.xml.replace("</mujoco>", '<size memory="1K"/></mujoco>'))
    with pytest.raises(ConfigError, match="MuJoCo cannot compile the model of environment ant: "):
        rollout(none, SPEC, np.zeros((2, SPEC.size), np.float32), backend="native")
    assert np.isfinite(rollout(ANT, SPEC, np.zeros((2, SPEC.size), np.float32), backend="native").returns).all()


@pytest.mark.parametrize("substeps", [1, 4])
def test_worlds_that_diverge_are_flagged_and_leave_their_neighbours_alone(substeps):
    """Gears of 10^18 throw the ants that act beyond MuJoCo's bound; those that do nothing stay."""
    env = replace(ANT, xml=re.sub('gear="[^"]*"', 'gear="1e18"', ANT.xml), substeps=substeps)
    assert env.digest != ANT.digest
    params = np.random.default_rng(0).normal(size=(24, SPEC.size)).astype(np.float32)
    params[::3] = 0.0
    outcomes = play(env, SPEC, params, np.zeros((24, 2), np.uint32), backend="native")
    calm = play(env, SPEC, params[::3], np.zeros((8, 2), np.uint32), backend="native")
    assert outcomes.finite[::3].all()
    assert not outcomes.finite[1::3].any()
    assert outcomes.terminated[1::3].all()
    assert np.isfinite(outcomes.returns).all()
    np.testing.assert_array_equal(outcomes.returns[::3], calm.returns)


def test_several_models_at_once_on_several_threads_are_each_alone():
    """Every thread of every model shares the C tables: results are those of one after the other."""
    tasks = [(envs.make(name).with_horizon(25), seed) for seed in range(3) for name in ("ant", "hopper", "swimmer")]

    def run(env, seed):
        spec = PolicySpec(env.observation_size, env.action_size, (4,))
        params = np.random.default_rng(seed).normal(size=(40, spec.size)).astype(np.float32)
        return play(env, spec, params, np.full((40, 2), seed, np.uint32), backend="native", threads=2).returns

    alone = [run(*task) for task in tasks]
    together = [None] * len(tasks)

    def work(number):
        together[number] = run(*tasks[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_the_library_auto_is_mjx_and_native_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "mujoco_step.so")
    assert resolve_backend(ANT, "auto") == "mjx"
    with pytest.raises(BackendError, match="backend native is not there: .* install a C compiler"):
        resolve_backend(ANT, "native")


def test_a_library_of_another_version_is_refused(monkeypatch, tmp_path):
    native._library.cache_clear()
    monkeypatch.setattr(native, "INTERFACE", native.INTERFACE + 1)
    with pytest.raises(BackendError, match="of another version of epvf-data; install epvf-data again"):
        native._library()
    broken = tmp_path / "mujoco_step.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(native, "LIBRARY", broken)
    with pytest.raises(BackendError, match="cannot be loaded .*install epvf-data again"):
        native._library()


CHILD = """
import sys
from pathlib import Path
import numpy as np
from epvf_data import envs
from epvf_data.physics import native
from epvf_data.physics.play import play
from epvf_data.policies.spec import PolicySpec

native.LIBRARY = Path(sys.argv[1])
for name in ("halfcheetah",):  # of several substeps
    env = envs.make(name).with_horizon(20)
    spec = PolicySpec(env.observation_size, env.action_size, (4,))
    params = np.random.default_rng(0).normal(size=(100, spec.size)).astype(np.float32)
    print(play(env, spec, params, np.zeros((100, 2), np.uint32), backend="native", threads=2).returns.sum())
"""


@pytest.mark.soak
@needs_compiler
def test_the_address_and_undefined_behaviour_sanitizers_find_nothing(tmp_path):
    library = tmp_path / "mujoco_step.so"
    flags = ["-std=c11", "-g", "-O1", "-fPIC", "-shared", "-fsanitize=address,undefined"]
    command = [COMPILER, *flags, "-fno-sanitize-recover=undefined", "-o", library, SOURCE]
    done = subprocess.run(command, capture_output=True, text=True)
    find = lambda name: subprocess.check_output([COMPILER, f"-print-file-name=lib{name}.so"], text=True).strip()  # noqa: E731
    runtimes = [find("asan"), find("ubsan")]
    if done.returncode or not all(map(os.path.isabs, runtimes)):
        pytest.skip("the compiler has no sanitizers")
    environment = {**os.environ, "LD_PRELOAD": " ".join(runtimes), "ASAN_OPTIONS": "detect_leaks=0"}
    command = [sys.executable, "-c", CHILD, str(library)]
    checked = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "Sanitizer" not in checked.stderr, checked.stderr[-3000:]
    assert checked.returncode == 0, checked.stderr[-3000:]
    plain = subprocess.run([*command[:-1], str(native.LIBRARY)], capture_output=True, text=True, check=True)
    assert checked.stdout == plain.stdout
