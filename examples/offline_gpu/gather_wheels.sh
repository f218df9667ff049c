#!/usr/bin/env bash
# Gathers the wheels that a GPU host without a network still needs, at the versions of constraints.txt.
#
#   examples/offline_gpu/gather_wheels.sh wheels        # here, with a network
#   (copy this repository and the folder to the host)
#   examples/offline_gpu/train.sh wheels ant-paper run 9
#
# The host is Linux on x86-64 with Python 3.12, and JAX for CUDA with flax, optax and orbax is installed there:
# none of the packages in HAVE is fetched. PYTHON_VERSION and HAVE change that.
set -euo pipefail

folder=${1:?the folder for the wheels}
version=${PYTHON_VERSION:-3.12}
have=${HAVE:-jax jaxlib flax optax orbax-checkpoint numpy scipy matplotlib rich typer pillow}
root=$(cd "$(dirname "$0")/../.." && pwd)

wanted="mujoco mujoco-mjx zarr numcodecs google-crc32c donfig trimesh glfw pyopengl jaxtyping wadler-lindig safetensors
  msgspec tensorboardx protobuf etils importlib-resources zipp fsspec absl-py"
names=()
for name in $wanted; do
  case " $have " in *" $name "*) continue ;; esac
  # A package may be pinned twice, by Python version: the line for newer Pythons comes last or stands alone.
  pin=$(grep -iE "^${name}==" "$root/constraints.txt" | grep -v "python_full_version < '3.12'" | tail -1 | cut -d' ' -f1 || true)
  names+=("${pin:-$name}")
done
mkdir -p "$folder"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --python-version "$version" --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
  --platform manylinux_2_17_x86_64 --platform any --dest "$folder" "${names[@]}"
ls "$folder"
du -sh "$folder" | cut -f1
