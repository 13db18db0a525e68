"""A model's whole life in one command: runs that begin where others ended.

Each of `c.order` is a run of its own, with its config in `c.runs` and its directory in
the workdir; "{workdir}" in a field is that workdir, so that one run finds another.
What is done is not done again: a pipeline goes on at its next stage, a training at its
newest checkpoint. lifecycle.html shows all of it.
"""

import json
import pathlib
import time
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from llm import config, files, registry, units
from llm.errors import InputError
from llm.reports import lifecycle_page
from llm.reports.lifecycle_page import Step
from llm.workloads import claim

_PLACE = "{workdir}"


def run(c: ConfigDict, workdir: str) -> None:
    """Runs what has not run yet, in order, and writes the page after each."""
    check(c)
    claim(c, workdir)
    root = pathlib.Path(workdir)
    record = root / "lifecycle.json"
    known = json.loads(record.read_text("utf-8")) if record.exists() else {}
    seconds, unfinished = known.get("seconds", {}), known.get("unfinished", {})
    for number, name in enumerate(c.order, start=1):
        own = ConfigDict(_placed(c.runs[name].to_dict(), workdir))
        title = f"({number}/{len(c.order)}) {name}"
        if name in seconds:
            print(f"{title}: done before", flush=True)
            continue
        print(title, flush=True)
        # A step that was stopped and goes on has taken the time of all its attempts.
        start = time.perf_counter() - unfinished.pop(name, 0.0)
        took = unfinished
        try:
            registry.build("workloads", own.workload)(own.lock(), str(root / name))
            took = seconds
        finally:
            took[name] = time.perf_counter() - start
            text = json.dumps({"seconds": seconds, "unfinished": unfinished}, indent=1)
            files.write_text(epath.Path(record), text + "\n")
        print(f"{title}: {units.duration(seconds[name])}", flush=True)
        steps = [Step(n, c.runs[n].workload, root / n, seconds.get(n)) for n in c.order]
        page = root / "lifecycle.html"
        files.write_text(epath.Path(page), lifecycle_page.write(page, steps))
    print(f"page: {root / 'lifecycle.html'}")


def check(c: ConfigDict) -> None:
    """Raises InputError for steps without a config, or configs that cannot run."""
    missing = [name for name in c.order if name not in c.runs]
    if missing or not c.order:
        raise InputError(
            got=f"steps {', '.join(c.order) or '()'} with configs of "
            f"{', '.join(c.runs) or 'none'}",
            want="a config for each",
        )
    for name in c.order:
        config.check(c.runs[name])


def _placed(value: Any, workdir: str) -> Any:
    """A config's values, with the workdir in the place of its mark."""
    if isinstance(value, str):
        return value.replace(_PLACE, workdir)
    if isinstance(value, dict):
        return {key: _placed(inner, workdir) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_placed(inner, workdir) for inner in value)
    return value
