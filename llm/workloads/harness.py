"""Scores a model by lm-evaluation-harness, on tasks of a folder: harness.json."""

from etils import epath
from ml_collections import ConfigDict

from llm import files, run_dir
from llm.errors import InputError
from llm.inference import lm_eval_model
from llm.knobs import Count, Positive, section
from llm.workloads import claim, load


@section("harness")
class Harness:
    """lm-evaluation-harness."""

    # As generate.model_dir.
    model_dir: str = ""
    # A folder with tasks of lm-evaluation-harness as YAML files, and which to run.
    folder: str = ""
    tasks: tuple[str, ...] = ()
    # Solved examples before a question; items of a task, 0 is all; and rows at once.
    shots: Count = 0
    limit: Count = 0
    batch_size: Positive = 32


SECTIONS = (Harness,)


def run(c: ConfigDict, workdir: str) -> None:
    """Runs the tasks of `c.harness` and writes what the harness says of them."""
    h = c.harness
    if not epath.Path(h.folder).is_dir():
        raise InputError(
            got=f"harness.folder {h.folder!r}{files.relative_to(h.folder)}",
            want="a folder with tasks of the harness, as YAML files",
        )
    loaded = load(h.model_dir, workdir)
    model = lm_eval_model.language_model(loaded, batch_size=h.batch_size)
    claim(c, workdir)
    made = lm_eval_model.evaluate(
        model, tasks=h.tasks, folder=h.folder, shots=h.shots, limit=h.limit
    )
    for name, figures in made.items():
        shown = ", ".join(f"{k.partition(',')[0]} {v:.4g}" for k, v in figures.items())
        print(f"{name}: {shown}")
    run_dir.write(workdir, "harness.json", made)
