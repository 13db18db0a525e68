"""What to say when a device has no memory left: what lies in it, the largest first.

The one line names the largest arrays of the training state and what would make it
smaller; the file beside the run holds all of them, what the allocator said (on a TPU,
the compiler's own list), and `memory.prof` what was live, for pprof.
"""

import contextlib
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath

from llm import atomic, tree, units
from llm.errors import InputError

_SHOWN = 3


@contextlib.contextmanager
def told(workdir: str, state: Any) -> Iterator[None]:
    """Turns the end of memory within it into one line, and files in the workdir.

    Args:
      state: arrays, or their shapes with shardings, that training keeps on the devices.

    Raises:
      InputError: no memory was left.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise _line(str(error), pathlib.Path(workdir), state) from error


def largest(state: Any) -> list[tuple[str, int]]:
    """(name, bytes on one device) of each leaf, the largest first."""
    found = [
        (name, _bytes_of_one(leaf)) for name, leaf in tree.named_leaves(state).items()
    ]
    return sorted(found, key=lambda pair: -pair[1])


def _bytes_of_one(leaf) -> int:
    return leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))


def _line(said: str, workdir: pathlib.Path, state: Any) -> InputError:
    held = largest(state)
    whole = sum(size for _, size in held)
    lines = [said, "", f"{units.size(whole)} of training state on each device:"]
    lines += [f"{units.size(size):>10}  {name}" for name, size in held]
    devices = {d for leaf in jax.tree.leaves(state) for d in leaf.sharding.device_set}
    own = (d for d in devices if d.process_index == jax.process_index())
    for device in sorted(own, key=lambda d: d.id):
        for name, value in (device.memory_stats() or {}).items():
            lines.append(f"{device}: {name} {value:,}")
    number = jax.process_index()
    path = workdir / f"memory{f'-{number}' if number else ''}.txt"
    atomic.write_text(epath.Path(path), "\n".join(lines) + "\n")
    jax.profiler.save_device_memory_profile(path.with_suffix(".prof"))
    named = ", ".join(f"{n} {units.size(size)}" for n, size in held[:_SHOWN])
    return InputError(
        got=f"no memory left on a device ({said.splitlines()[0][:200]}), of which the "
        f"training state takes {units.size(whole)}: {named}, ...",
        want="fewer rows at once (train.accumulate, train.batch_size), "
        "model.remat=full, or more devices in the mesh",
        do=f"see {path} for all of it, and configs/plan.py for what fits",
    )
