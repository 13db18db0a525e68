"""Options of XLA's TPU compiler, by generation, for training.

They are given to the compile call, not to the process, so that one that this compiler
does not know is an error with a name (a flag of the environment would end the process
without one); `probed` leaves those out, and the log says which are used and which not.
"""

import re
from typing import Any

import jax

from llm.precision import Policy

# Collectives run beside products, cut in pieces that fill the gaps.
_DENSE = {
    "xla_tpu_enable_async_collective_fusion": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
    "xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
    "xla_tpu_overlap_compute_collective_tc": "true",
    "xla_enable_async_all_gather": "true",
    # Else kernels of heads on all chips, and on a v5p all kernels, are gathered as sums
    # of parts among zeros: twice the bytes, and nothing runs beside them.
    "xla_tpu_prefer_async_allgather_to_allreduce": "true",
    "xla_tpu_enable_data_parallel_all_reduce_opt": "true",
    "xla_tpu_data_parallel_opt_different_sized_ops": "true",
}
OPTIONS = {
    r"tpu v5p?": _DENSE | {"xla_tpu_enable_ag_backward_pipelining": "true"},
    r"tpu v6.*": _DENSE | {"xla_tpu_scoped_vmem_limit_kib": "98304"},
    r"tpu.*": _DENSE,
}


def options(policy: Policy, device: Any = None) -> dict[str, str]:
    """The options for the chip of a policy that its compiler knows; {} but on a TPU.

    Args:
      device: where to try them; the first of the process where None.
    """
    return probed(_wanted(policy), device)


def left_out(policy: Policy, chosen: dict[str, str]) -> list[str]:
    """What would be an option for the chip of a policy, did its compiler know it."""
    return [name for name in _wanted(policy) if name not in chosen]


def _wanted(policy: Policy) -> dict[str, str]:
    if policy.platform != "tpu":
        return {}
    chip = policy.chip.lower()
    return next((o for kind, o in OPTIONS.items() if re.fullmatch(kind, chip)), {})


def probed(wanted: dict[str, str], device: Any = None) -> dict[str, str]:
    """Those of the options with which a program of one addition compiles."""
    where = jax.sharding.SingleDeviceSharding(device) if device is not None else None
    number = jax.ShapeDtypeStruct((), "float32", sharding=where)
    lowered = jax.jit(lambda x: x + 1).lower(number)
    known = {}
    for name, value in wanted.items():
        try:
            lowered.compile(compiler_options={name: value})
        except jax.errors.JaxRuntimeError as error:
            if "No such compile option" not in str(error):
                raise
        else:
            known[name] = value
    return known


def shown(chosen: dict[str, str]) -> str:
    """As flags, in a line."""
    return " ".join(f"{name}={value}" for name, value in chosen.items()) or "none"
