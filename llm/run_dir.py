"""A run directory belongs to one config, and says so before anything is written.

`config.json` holds the resolved config, package versions, the git commit and the
device. The same command run again finds its own config and goes on; another config is
refused with the fields that differ, unless they only say where and how the same thing
is computed: on which mesh, with how much memory, watched by whom, and what a spike is
answered by. A run may also be made longer.
"""

import importlib.metadata
import json
import pathlib
import platform
import re
import subprocess
from collections.abc import Callable
from typing import Any

from etils import epath

from llm import files, json_text
from llm.errors import InputError

# Fields that a run may go on with other values of.
_HOW = (
    "mesh", "rules", "model.remat", "objective.chunk", "train.accumulate",
    "train.find_nan", "train.watchdog", "train.watchdog_longest", "train.notices",
    "train.wandb", "train.local_dir", "train.local_every", "train.spike",
    "profile_steps", "data.processes", "data.work_dir", "runner", "runner_options",
)  # fmt: skip
# Fields that may grow: the run goes on, by the schedule of its new length.
_LENGTH = ("train.steps", "train.epochs")
# What says itself which settings it is of, and is refused or made anew by who needs it.
_PREPARED = {
    "config.json", "work", "corpus", "prepare_data.json", "data_card.html",
    "tokenizer", "tokens", "train_tokenizer.json",
}  # fmt: skip
# What a training makes before its first step.
_BEGUN = ("metrics.jsonl", "tensorboard", "processes.json")
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def claim(
    workdir: str,
    config: dict[str, Any],
    *,
    device: str,
    devices: int,
    complete: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> list[str]:
    """Makes `workdir` this config's, or checks that it is already.

    One that holds no more than prepared data, because a run of it failed before its
    first step, is free for another config. One that goes on elsewhere, or in another
    way, says so, and has the newer config from then on.

    Args:
      config: nested plain values, as `ConfigDict.to_dict()` returns them.
      complete: gives the config that is there the fields that are newer than it.

    Returns:
      The fields that a run which goes on has other values of.

    Raises:
      InputError: the directory holds another config, or cannot be written.
    """
    path, found = epath.Path(workdir) / "config.json", []
    config = json.loads(json.dumps(config))
    if "preview" in config:  # to look at what would be trained on is no other run
        config["preview"] = 0
    if path.exists():
        held = json.loads(json.dumps(complete(load(workdir)["config"])))
        # Sections that one of them lacks are of other workloads.
        held = {name: value for name, value in held.items() if name in config}
        if held == {name: value for name, value in config.items() if name in held}:
            return []
        if _made_anything(path.parent):
            found = differences(held, {name: config[name] for name in held})
            other = [line for line in found if line.split(" ")[0] not in _HOW]
            mixture = config.get("data", {}).get("mixture", {})
            if not mixture.get("by"):  # whose order knows the length
                other = [line for line in other if not _longer(line, held, config)]
            if other:
                raise InputError(
                    got=f"a config that differs from the one in {workdir} in "
                    + "; ".join(other),
                    want="the same config, to resume",
                    do="use another --workdir",
                )
            print(f"{workdir} goes on with other {'; '.join(found)}", flush=True)
            if any(line.split(" ")[0] in _LENGTH for line in found):
                print(
                    "the learning rate follows the schedule of the new length from "
                    "here on",
                    flush=True,
                )
    record = {
        "config": config,
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "git_commit": _git_commit(),
        "device_kind": device,
        "devices": devices,
        "python": platform.python_version(),
    }
    files.write_text(path, json.dumps(record, indent=1) + "\n")
    return [line.split(" ")[0] for line in found]


def made_longer(changed: list[str]) -> bool:
    """Whether the fields that `claim` returned make a run longer."""
    return bool({*_LENGTH} & {*changed})


def _longer(line: str, held: dict[str, Any], config: dict[str, Any]) -> bool:
    field = line.split(" ")[0]
    if field not in _LENGTH:
        return False
    before, now = (c["train"].get(field.partition(".")[2]) for c in (held, config))
    return bool(before) and bool(now) and now > before


def _made_anything(workdir: epath.Path) -> bool:
    return any(
        path.name not in _PREPARED
        and not re.fullmatch(r"memory(-\d+)?\.(txt|prof)", path.name)
        and not path.name.startswith(".")
        and not (path.is_dir() and not any(path.iterdir()))
        for path in workdir.iterdir()
    )


def forget_beginning(workdir: str) -> None:
    """Removes what a training made that ended before it logged or saved a step."""
    root = epath.Path(workdir)
    logged = root / "metrics.jsonl"
    if not logged.exists() or logged.stat().length or any(root.glob("checkpoints/*")):
        return
    for name in _BEGUN:
        path = root / name
        if path.is_dir():
            path.rmtree()
        elif path.exists():
            path.unlink()


def write(workdir: str, name: str, result: Any) -> None:
    """Replaces a JSON file of a run directory."""
    text = json.dumps(result, indent=1) + "\n"
    files.write_text(epath.Path(workdir) / name, text)


def load(workdir: str, name: str = "config.json") -> dict[str, Any]:
    """The content of config.json, or of a file like it.

    Raises:
      InputError: the directory is not a run directory.
    """
    path = epath.Path(workdir) / name
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(
            got=f"{workdir or 'no directory'}, which has no {name}"
            + files.relative_to(workdir),
            want="the directory of a run",
            do="train one first, or correct the path",
        ) from error
    return json_text.parsed(path, content, f"a whole {name}")


def differences(held: Any, new: Any, prefix: str = "") -> list[str]:
    """Lines such as `train.steps (100 there, 200 here)`."""
    if isinstance(held, dict) and isinstance(new, dict):
        found = []
        for key in sorted(held.keys() | new.keys()):
            found += differences(held.get(key), new.get(key), f"{prefix}{key}.")
        return found
    return [] if held == new else [f"{prefix[:-1]} ({held!r} there, {new!r} here)"]


def _git_commit() -> str:
    """The commit of the checkout that this package is run from, or ''."""
    here = pathlib.Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
            encoding="utf-8",
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
