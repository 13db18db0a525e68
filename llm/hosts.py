"""Several processes that train one model: they find each other, and agree.

    JAX_COORDINATOR_ADDRESS=HOST:PORT JAX_NUM_PROCESSES=4 JAX_PROCESS_ID=0 python -m ...

says it outright, on any machines; on TPU pods and under Slurm jax finds out by itself.
Process 0 alone writes what is not a checkpoint. When one process is lost the others end
within a minute, with 76 where they can still say so, else by an abort of the runtime
(134), and the same command, with as many processes as there then are, goes on from the
newest checkpoint.
"""

import contextlib
import os
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import NoReturn

from llm.errors import InputError

_ADDRESS, _COUNT, _NUMBER = (
    "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
)  # fmt: skip
SHARED = ("train",)
_LOST_SECONDS = 60  # without a sign of life
_END_SECONDS = 30  # to wait for the others at the end
_GONE = re.compile(
    r"Gloo|Connection (closed|reset|refused)|coordination|heartbeat", re.I
)


def join(workload: str) -> None:
    """Makes this process one of several, where the environment says that it is.

    Call it before anything is computed.

    Raises:
      InputError: the environment says only half of it, or the workload is not one that
        several processes share.
    """
    given = {name: os.environ[name] for name in (_ADDRESS, _COUNT, _NUMBER)
             if os.environ.get(name)}  # fmt: skip
    slurm = "SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_NTASKS", 1)) > 1
    if given or slurm or _on_tpu_pod():
        _start(**(_explicit(given) if given else {}))
        _check(workload)


def _check(workload: str) -> None:
    import jax

    if jax.process_count() > 1 and workload not in SHARED:
        raise InputError(
            got=f"workload {workload!r} in {jax.process_count()} processes",
            want=f"one process, or a workload of several: {', '.join(SHARED)}",
            do="prepare the data in one process, then train with "
            "--config.workload=train on the same --workdir",
        )


def _explicit(given: dict[str, str]) -> dict[str, object]:
    try:
        count, number = int(given[_COUNT]), int(given[_NUMBER])
        host, _, port = given[_ADDRESS].rpartition(":")
        fits = host and int(port) and 0 <= number < count
    except (KeyError, ValueError):
        fits = False
    if not fits:
        shown = " ".join(f"{name}={value}" for name, value in given.items())
        raise InputError(
            got=shown,
            want=f"{_ADDRESS}=HOST:PORT of process 0, {_COUNT}, and {_NUMBER} from 0",
            do="set all three, or none",
        )
    return {
        "coordinator_address": given[_ADDRESS],
        "num_processes": count,
        "process_id": number,
    }


def _on_tpu_pod() -> bool:
    """A TPU machine that was told of others."""
    chips = pathlib.Path("/dev/accel0").exists() or pathlib.Path("/dev/vfio").exists()
    others = os.environ.get("TPU_WORKER_HOSTNAMES", "").count(",") > 0
    slices = "MEGASCALE_COORDINATOR_ADDRESS" in os.environ
    return chips and (others or slices)


def _start(**explicit) -> None:
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Two programs at once may meet the other processes' in another order, upon which
    # gloo aborts; other backends order what they run themselves.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        jax.distributed.initialize(
            heartbeat_timeout_seconds=_LOST_SECONDS,
            shutdown_timeout_seconds=_END_SECONDS,
            **explicit,
        )
    except (KeyError, ValueError) as error:  # of what a cluster did not tell
        raise InputError(
            got=f"one of several processes that does not find the others ({error})",
            want=f"{_ADDRESS}, {_COUNT} and {_NUMBER}, or all that Slurm or a TPU says",
            do="for one process alone: unset SLURM_PROCID",
        ) from error


def several() -> bool:
    """Whether this process has joined others."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def lost(error: BaseException) -> bool:
    """Whether an error among several processes is that another is gone."""
    return isinstance(error, RuntimeError | ValueError) and bool(
        _GONE.search(str(error))
    )


def leave(code: int) -> NoReturn:
    """Ends one of several processes without waiting for the others, who may be gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def first() -> bool:
    """Whether this process writes and prints."""
    import jax

    return jax.process_index() == 0


@contextlib.contextmanager
def first_goes_first(what: str) -> Iterator[None]:
    """Process 0 does what is within; the others after it, who find it done."""
    import jax

    several = jax.process_count() > 1
    if several and not first():
        _meet(what)
    yield
    if several and first():
        _meet(what)


def _meet(what: str) -> None:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(what)


def gathered(value: float) -> list[float]:
    """The values of all processes, in their order; all must call it at once."""
    import jax

    if jax.process_count() == 1:
        return [value]
    import numpy as np
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(np.float32(value)).tolist()


def agreed(request: str, choices: tuple[str, ...]) -> str:
    """What any process was asked for; the last of the choices that was. '' is nothing.

    All processes must call it, at the same step.
    """
    import jax

    if jax.process_count() == 1:
        return request
    import numpy as np
    from jax.experimental import multihost_utils

    known = ("", *choices)
    asked = multihost_utils.process_allgather(np.int32(known.index(request)))
    return known[int(asked.max())]
