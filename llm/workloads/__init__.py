"""The contract of a workload, and what all of them begin with.

A file of this folder is a command: `run(c, workdir)` does it, and `check(c)`, where
there is one, refuses what it cannot do before anything is read. `SECTIONS` are those of
its config (`llm/knobs.py`), and `SECTIONS_OF` names workloads whose sections it reads,
too; their bounds are checked before it runs. What is wrong with a
config or a file must show before the run directory is claimed, so the order is:

    loaded = load(c.embed.model_dir, workdir)
    claim(c, workdir)
    run_dir.write(workdir, "embed.json", result)
"""

import functools

import jax
from ml_collections import ConfigDict

from llm import config, run_dir
from llm.inference import import_model, load_model


def load(model_dir: str, workdir: str) -> load_model.Loaded:
    """The model of a run directory, a Hugging Face folder or a GGUF file.

    A model of others is imported into `workdir` first; '' is that of `workdir` itself.
    """
    host = jax.devices("cpu")[0]
    source = import_model.run_of(model_dir or workdir, workdir, host)
    return load_model.load(source, jax.devices()[0])


def claim(c: ConfigDict, workdir: str) -> list[str]:
    """Makes the run directory this config's: see `run_dir.claim`."""
    devices = jax.devices()
    return run_dir.claim(
        workdir, c.to_dict(), device=devices[0].device_kind, devices=len(devices),
        complete=functools.partial(config.with_new_fields, now=c.to_dict()),
    )  # fmt: skip
