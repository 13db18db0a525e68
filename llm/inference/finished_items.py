"""Items that an evaluation has finished, so that one that was interrupted goes on.

    workdir/evaluate_tasks/LABEL.jsonl     a line that says what they are of, then items

What stands there of another model, task or setting is not taken.
"""

import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from llm import files, json_text

FOLDER = "evaluate_tasks"


class Kept:
    """The finished items of one task."""

    def __init__(self, path: pathlib.Path, of: Mapping[str, Any]):
        self._path = path
        self._head = json.dumps(of, sort_keys=True, default=list)

    def read(self) -> list[dict[str, Any]]:
        """The items that are finished; none of another model, task or setting."""
        lines = json_text.lines(self._path)
        if not lines or lines[0] != self._head:
            files.write_text(self._path, self._head + "\n")
            return []
        items = []
        for line in lines[1:]:
            try:
                items.append(json.loads(line))
            except ValueError:  # the last line of a process that was killed
                break
        if len(items) < len(lines) - 1:
            files.write_text(self._path, "\n".join([*lines[: len(items) + 1], ""]))
        if items:
            print(
                f"{self._path.stem}: {len(items)} items were finished before",
                flush=True,
            )
        return items

    def add(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Keeps more of them."""
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(
                json.dumps(item, ensure_ascii=False) + "\n" for item in items
            )


class Items:
    """The finished items of the tasks of one model."""

    def __init__(self, workdir: str, model: Mapping[str, Any], name: str = ""):
        self._folder = pathlib.Path(workdir) / FOLDER / name
        self._model = model

    def of(self, label: str, about: Mapping[str, Any]) -> Kept:
        """Those of a task, of which `about` says all that its answers depend on."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return Kept(self._folder / f"{label}.jsonl", {"model": self._model, **about})


def forget(workdir: str) -> None:
    """Removes them, once the evaluation is written."""
    shutil.rmtree(pathlib.Path(workdir) / FOLDER, ignore_errors=True)
