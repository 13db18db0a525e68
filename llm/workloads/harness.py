"""Scores a model by lm-evaluation-harness, on tasks of a folder: harness.json."""

import json

import jax
from etils import epath
from ml_collections import ConfigDict

from llm import files, run_dir
from llm.errors import InputError
from llm.inference import import_model, lm_eval_model, load_model


def run(c: ConfigDict, workdir: str) -> None:
    """Runs the tasks of `c.harness` and writes what the harness says of them."""
    h = c.harness
    if not epath.Path(h.folder).is_dir():
        raise InputError(
            got=f"harness.folder {h.folder!r}{files.relative_to(h.folder)}",
            want="a folder with tasks of the harness, as YAML files",
        )
    device, host = jax.devices()[0], jax.devices("cpu")[0]
    # First, so that a wrong path leaves nothing behind.
    loaded = load_model.load(
        import_model.run_of(h.model_dir or workdir, workdir, host), device
    )
    model = lm_eval_model.language_model(loaded, batch_size=h.batch_size)
    run_dir.claim(
        workdir, c.to_dict(), device=device.device_kind, devices=len(jax.devices())
    )
    made = lm_eval_model.evaluate(
        model, tasks=h.tasks, folder=h.folder, shots=h.shots, limit=h.limit
    )
    for name, figures in made.items():
        shown = ", ".join(f"{k.partition(',')[0]} {v:.4g}" for k, v in figures.items())
        print(f"{name}: {shown}")
    files.write_text(
        epath.Path(workdir) / "harness.json", json.dumps(made, indent=1) + "\n"
    )
