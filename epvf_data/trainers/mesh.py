"""Several devices in one process: members (seeds, ensembles) on one axis of a mesh, rows of a batch on the other.

What lies where is all that is said here. jit divides a step as its arrays are divided, and adds up over the rows' axis
what each device found for the loss and its gradient; only the order of these sums differs from one device's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from epvf_data.runtime import devices

AXES = MEMBERS, ROWS = "members", "rows"


class Layout(NamedTuple):
    """Where arrays lie; without a mesh, where they are. All but `each` take and give any tree of arrays."""

    mesh: Mesh | None = None

    def members(self, tree: Any) -> Any:
        """Divided along the first axis, that of members or seeds."""
        return self._put(tree, MEMBERS)

    def rows(self, tree: Any) -> Any:
        """Divided along the first axis, that of a batch's rows. Within `vmap` over members, rows of each."""
        return self._put(tree, ROWS)

    def copied(self, tree: Any) -> Any:
        """Whole on every device."""
        return self._put(tree, None)

    def each(self, function: Callable[..., Any], *arrays: Any) -> Any:
        """function(arrays), each device by itself on its part of the rows of all arrays and results.

        For what must not wait for other devices. Inside compiled functions; where rows cannot be divided, not divided.
        """
        if self.mesh is None or any(len(array) % self.mesh.size for array in arrays):
            return function(*arrays)
        spec = PartitionSpec(AXES)
        return jax.shard_map(function, mesh=self.mesh, in_specs=spec, out_specs=spec, check_vma=False)(*arrays)

    def _put(self, tree: Any, axis: str | None) -> Any:
        if self.mesh is None:
            return tree
        return jax.tree.map(partial(self._put_leaf, axis, self.mesh), tree)

    @staticmethod
    def _put_leaf(axis: str | None, mesh: Mesh, leaf: Any) -> Any:
        divides = axis is not None and len(leaf) % mesh.shape[axis] == 0
        place = NamedSharding(mesh, PartitionSpec(axis) if divides else PartitionSpec())
        put = jax.lax.with_sharding_constraint if isinstance(leaf, Tracer) else jax.device_put
        return put(leaf, place)


ONE = Layout()


def make_layout(members: int, sizes: Sequence[int], most: int | None = None) -> Layout:
    """The layout for so many members side by side, whose steps see batches of these sizes, on at most `most` devices.

    Members are divided as far as they divide, since they need not talk to each other; then rows. A device for which
    neither leaves anything is not used.
    """
    there = devices()[:most]
    first = math.gcd(members, len(there))
    second = math.gcd(len(there) // first, *sizes)
    if first * second == 1:
        return ONE
    kinds = (AxisType.Auto,) * len(AXES)
    return Layout(jax.make_mesh((first, second), AXES, kinds, devices=there[: first * second]))
