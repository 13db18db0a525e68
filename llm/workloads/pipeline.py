"""From raw text to a measured, talking model: every workload in turn, then the report.

    corpus -> tokenizer -> training -> held-out evaluation -> samples -> report.html

Each workload leaves its result in the run directory and finds it there the next time,
so a pipeline that was stopped goes on where it was.
"""

import time

import jax
from etils import epath
from ml_collections import ConfigDict

from llm import files, registry, run_dir, units
from llm.reports import run_report
from llm.training import init_state
from llm.workloads import claim

# {stage: folders that it leaves beside its result}
STAGES = {
    "prepare_data": ("corpus",),
    "train_tokenizer": ("tokenizer", "tokens"),
    "train": ("checkpoints",),
    "evaluate": (),
    "generate": (),
}

SECTIONS_OF = (*STAGES, "plan")  # its training may be planned


def run(c: ConfigDict, workdir: str) -> None:
    """Runs the stages whose result is not there yet, and writes the report."""
    with files.lock(workdir, "runs a pipeline", name=".pipeline.lock"):
        _run(c, workdir)


def _run(c: ConfigDict, workdir: str) -> None:
    c, _ = init_state.resolved(c, workdir, jax.devices("cpu")[0])
    stages = _wanted(c)
    for stage in stages:
        registry.module("workloads", stage).check(c)
    changed = claim(c, workdir)
    if run_dir.made_longer(changed):
        for stage in [*STAGES][[*STAGES].index("train") :]:  # made of a shorter run
            (epath.Path(workdir) / f"{stage}.json").unlink(missing_ok=True)
    for number, stage in enumerate(stages, start=1):
        title = f"[{number}/{len(stages)}] {stage}"
        made = (f"{stage}.json", *STAGES[stage])
        if all((epath.Path(workdir) / name).exists() for name in made):
            print(f"{title}: done before", flush=True)
            continue
        print(title, flush=True)
        start = time.perf_counter()
        registry.build("workloads", stage)(c, workdir)
        print(f"{title}: {units.duration(time.perf_counter() - start)}", flush=True)
        if stage == "train" and c.preview:
            return
        run_report.write(workdir)
    print(f"report: {run_report.write(workdir)}")


def _wanted(c: ConfigDict) -> list[str]:
    """The stages for this model: not all of them are evaluated, or write texts."""
    e = c.evaluate
    unwanted = {
        "evaluate": not (e.tasks or e.objective or c.eval_text),
        "generate": not c.generate.prompts,
    }
    return [stage for stage in STAGES if not unwanted.get(stage)]
