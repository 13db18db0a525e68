"""Pods that are not here, by name, for the TPU compiler to compile for.

    pod = find("v5e:16x16")            # 256 chips in a square
    mesh = pod.mesh((("fsdp", -1),))
    find("2xv5e:16x16")                # two such slices, over the network

Needs libtpu (`pip install .[tpu]`), which runs on any Linux machine; no TPU.
"""

import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from llm import sharding
from llm.errors import InputError
from llm.planning import flops

# What libtpu must be told of a generation, beside the shape: the smallest slice that we
# name, chips of a host, and that the two cores of a v4 are one device.
_SHAPES = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2, "tpu7x": 3}
_SQUARE = {"v5e", "v6e"}
_WANT = "a slice such as v4:2x2x2, v5e:16x16, v5p:4x4x4, v6e:16x16, tpu7x:2x2x1 or 2xv5e:16x16"  # noqa: E501


class StandIn:
    """Takes the place of a device while a mesh is made."""

    platform = "cpu"


class Pod(NamedTuple):
    """A slice of TPUs, or several.

    Attributes:
      accelerator: its name in `flops.CHIPS`.
      devices: what jax would list there.
    """

    name: str
    accelerator: str
    slices: int
    chips: int
    devices: Sequence[Any]

    @property
    def chip(self) -> flops.Chip:
        """What one chip can do."""
        return flops.CHIPS[self.accelerator]

    @property
    def kind(self) -> str:
        """What jax calls a device of it."""
        return self.devices[0].device_kind

    def mesh(self, axes: Sequence[tuple[str, int]]) -> Mesh:
        """The axes over all devices; of several slices, `data` is across them.

        Raises:
          InputError: the slices do not divide `data`.
        """
        if self.slices == 1:
            return sharding.make_mesh(axes, self.devices)
        from jax.experimental import mesh_utils

        if "data" not in dict(axes):
            axes = (("data", self.slices), *axes)
        whole = sharding.make_mesh(axes, [StandIn() for _ in self.devices])
        if whole.shape["data"] % self.slices:
            raise InputError(
                got=f"a mesh with data {whole.shape['data']} on {self.slices} slices",
                want=f"a multiple of {self.slices}",
            )
        across = tuple(self.slices if n == "data" else 1 for n in whole.axis_names)
        within = tuple(
            n // ways for n, ways in zip(whole.devices.shape, across, strict=True)
        )
        grid = mesh_utils.create_hybrid_device_mesh(
            within, across, devices=np.asarray(self.devices)
        )
        kinds = (AxisType.Auto,) * len(across)
        return Mesh(grid, whole.axis_names, axis_types=kinds)


def find(name: str) -> Pod:
    """The pod of a name.

    Raises:
      InputError: an unknown name, a shape that its generation does not come in, or no
        libtpu to ask.
    """
    parts = re.fullmatch(r"(?:(\d+)x)?(\w+):(\d+(?:x\d+)*)", name)
    if not parts or len(parts[3].split("x")) != _SHAPES.get(parts[2]):
        raise InputError(got=f"topology {name!r}", want=_WANT)
    slices, generation, shape = int(parts[1] or 1), parts[2], parts[3]
    chips = math.prod(map(int, shape.split("x")))
    devices = _devices(f"{generation}:{shape}", generation, slices, chips)
    return Pod(name, generation, slices, slices * chips, devices)


def available() -> bool:
    """Whether libtpu is installed."""
    return importlib.util.find_spec("libtpu") is not None


def _devices(name: str, generation: str, slices: int, chips: int) -> Sequence[Any]:
    if not available():
        raise InputError(
            got=f"topology {name} without libtpu", want="the TPU compiler",
            do="pip install .[tpu]",
        )  # fmt: skip
    from jax.experimental import topologies

    # There is no machine of a cloud to ask, which libtpu would complain of, and another
    # process may compile, too.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5e-4")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    told: dict[str, Any] = {}
    if generation in _SQUARE:
        told["chips_per_host_bounds"] = (2, 2, 1) if chips > 1 else (1, 1, 1)
    if generation == "v4":
        told["chip_config_name"] = "megacore"
    if slices > 1:
        told["num_slices"] = slices
    try:
        return topologies.get_topology_desc(name, "tpu", **told).devices
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(got=f"topology {name!r}: {reason}", want=_WANT) from error
