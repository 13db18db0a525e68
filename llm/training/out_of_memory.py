"""What to say when a device has no memory left: what lies in it, the largest first.

The one line names the largest arrays of the training state and of the step, and what
would make it smaller; the file beside the run holds more of them, what the allocator
said (on a TPU, the compiler), and `memory.prof` what was live, for pprof.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from etils import epath
from jax.extend.core import ClosedJaxpr

from llm import files, tree, units
from llm.errors import InputError
from llm.training import live_memory

_SHOWN = 3


@contextlib.contextmanager
def told(
    workdir: str, state: Any, program: Callable[[], ClosedJaxpr] | None = None
) -> Iterator[None]:
    """Turns the end of memory within it into one line, and files in the workdir.

    Args:
      state: arrays, or their shapes with shardings, that training keeps on the devices.
      program: traces what runs in it, to name its largest arrays.

    Raises:
      InputError: no memory was left.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        arrays = live_memory.largest(program()) if program else []
        raise _line(str(error), pathlib.Path(workdir), state, arrays) from error


def largest(state: Any) -> list[tuple[str, int]]:
    """(name, bytes on one device) of each leaf, the largest first."""
    leaves = tree.named_leaves(state)
    found = [(name, live_memory.device_bytes(leaf)) for name, leaf in leaves.items()]
    return sorted(found, key=lambda pair: -pair[1])


def _line(said: str, workdir: pathlib.Path, state: Any, arrays) -> InputError:
    held = largest(state)
    whole = sum(size for _, size in held)
    lines = [said, "", f"{units.size(whole)} of training state on each device:"]
    lines += [f"{units.size(size):>10}  {name}" for name, size in held]
    if arrays:
        lines += ["", "largest arrays of the step, over all devices:"]
        lines += [*map(str, arrays), ""]
    devices = {d for leaf in jax.tree.leaves(state) for d in leaf.sharding.device_set}
    own = (d for d in devices if d.process_index == jax.process_index())
    for device in sorted(own, key=lambda d: d.id):
        for name, value in (device.memory_stats() or {}).items():
            lines.append(f"{device}: {name} {value:,}")
    number = jax.process_index()
    path = workdir / f"memory{f'-{number}' if number else ''}.txt"
    files.write_text(epath.Path(path), "\n".join(lines) + "\n")
    jax.profiler.save_device_memory_profile(path.with_suffix(".prof"))
    named = ", ".join(f"{n} {units.size(size)}" for n, size in held[:_SHOWN])
    made = "; ".join(map(str, arrays[:_SHOWN]))
    return InputError(
        got=f"no memory left on a device ({said.splitlines()[0][:200]}), of which the "
        f"training state takes {units.size(whole)}: {named}, ..."
        + (f"; the step makes, over all devices: {made}, ..." if made else ""),
        want="fewer rows at once (train.accumulate, train.batch_size), "
        "model.remat=full, or more devices in the mesh",
        do=f"see {path} for all of it, and configs/plan.py for what fits",
    )
