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
import time
from collections.abc import Iterator, Mapping
from typing import NoReturn

from llm.errors import InputError

_ADDRESS, _COUNT, _NUMBER = (
    "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
)  # fmt: skip
SHARED = ("train",)
_LOST_SECONDS = 60  # without a sign of life
_SEEN_SECONDS = 10  # until a file of another machine is there
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
    slurm = _in_slurm_step(os.environ)
    if given or slurm or _on_tpu_pod():
        explicit = _explicit(given) if given else {}
        if slurm and not given:
            explicit = {"local_device_ids": slurm_devices(os.environ)}
        _start(**explicit)
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


def _in_slurm_step(environment: Mapping[str, str]) -> bool:
    """Whether srun began this process, one of several.

    A script of sbatch that is run without srun has SLURM_PROCID, too, and is alone.
    """
    count = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    return "SLURM_STEP_NODELIST" in environment and count > 1


def slurm_devices(environment: Mapping[str, str]) -> list[int] | None:
    """The GPUs of this task among those that it sees; None where it sees none.

    jax would take one for each task, whatever it sees.
    """
    shown = environment.get("CUDA_VISIBLE_DEVICES", "")
    names = [name for name in shown.split(",") if name.strip()]
    visible = 0 if names == ["NoDevFiles"] else len(names)  # Slurm's word for none
    if not visible:
        return None
    # Such as `4(x2),3`: of the node at hand, which Slurm numbers.
    counts = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        tasks, _, times = part.partition("(x")
        counts += [int(tasks)] * int(times.rstrip(")") or 1)
    tasks = counts[min(int(environment.get("SLURM_NODEID", 0)), len(counts) - 1)]
    on_node = environment.get("SLURM_GPUS_ON_NODE", "")
    bound = (  # Slurm shows a task its own alone
        "SLURM_GPUS_PER_TASK" in environment
        or "gres/gpu" in environment.get("SLURM_TRES_PER_TASK", "")
        or visible < tasks
        or (on_node.isdigit() and visible < int(on_node))
    )
    if bound or tasks == 1:
        return list(range(visible))
    each, place = visible // tasks, int(environment.get("SLURM_LOCALID", 0))
    if visible % tasks and not place:
        print(f"{visible} GPUs for {tasks} tasks: {visible % tasks} are not used",
              flush=True)  # fmt: skip
    return list(range(place * each, (place + 1) * each))


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


def check_shared(workdir: str) -> None:
    """Checks that all processes see one run directory; all must call it at once.

    Raises:
      InputError: some see another folder: the first checkpoint would wait for ever.
    """
    import jax

    if jax.process_count() == 1:
        return
    import numpy as np
    from jax.experimental import multihost_utils

    own = np.frombuffer(os.urandom(8), np.uint32)
    token = multihost_utils.broadcast_one_to_all(own)
    path = pathlib.Path(workdir) / f".shared-{''.join(f'{x:08x}' for x in token)}"
    if first():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    _meet("shared folder")
    deadline = time.monotonic() + _SEEN_SECONDS
    while not (seen := path.exists()) and time.monotonic() < deadline:
        time.sleep(0.2)  # a network disk may show it late
    blind = np.flatnonzero(multihost_utils.process_allgather(np.int32(not seen)))
    if first():
        path.unlink(missing_ok=True)
    if len(blind):
        raise InputError(
            got=f"processes {', '.join(map(str, blind))} of {jax.process_count()} that "
            f"do not see the {workdir} of process 0",
            want="one run directory that all of them share",
            do="put --workdir on a disk that all machines mount",
        )


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
