"""From a source to a clean, split corpus: `workdir/corpus/` and `prepare_data.json`.

Reads c.data (source, stages, stage, fractions). A finished corpus of the same settings
is kept as it is; one of other settings is never overwritten.
"""

import contextlib
import json
import math
import pathlib
import platform
import shutil
import time
from collections.abc import Iterator
from typing import Any, Literal

from etils import epath
from ml_collections import ConfigDict

from llm import files, registry, run_dir, units
from llm.corpus import beam_runner, runner, split, storage, workers
from llm.corpus.file_source import in_parts
from llm.document import NOTE
from llm.errors import InputError, MachineError
from llm.knobs import Amount, Between0And1, Count, section
from llm.registry import every_plugin, plugin
from llm.reports import data_card
from llm.text import hashing

_DOES = "prepares a corpus"
_REASONS = 5  # of drops that an error tells
_VALUES = 200  # of a field of meta that are counted
_FEW = 3  # of them are always told
_GROUPS = 1000  # of a split that a report names


@section("")
class Runner:
    """What prepares corpora."""

    # local, processes of this machine; or beam, Apache Beam (the extra `beam`), and its
    # own flags, such as ("--runner=DataflowRunner",).
    runner: Literal["local", "beam"] = "local"
    runner_options: tuple[str, ...] = ()


@section("data")
class Data:
    """Documents: from where, and what is done to them."""

    # A run directory whose prepared corpus to use; '' makes one in this workdir.
    corpus_dir: str = ""
    # Where documents come from: a file of llm/sources/ and its knobs.
    source: dict = plugin("sources", "stdlib")
    # What happens to them, in this order: files of llm/stages/ ...
    stages: tuple[str, ...] = ("normalise", "generated", "exact_dedup", "minhash")
    # ... and their knobs.
    stage: dict = every_plugin("stages")
    # Processes that prepare it, 0 is one a core; seconds that a stage may take for one
    # document, 0 is without limit.
    processes: Count = 0
    seconds: Amount = 60.0
    # A folder where the steps of the preparation stay, with all scores: a run with
    # other thresholds, or a stage more, takes from it what is the same. '' keeps them
    # in this workdir, and only until the corpus is finished.
    work_dir: str = ""
    # Shares of the groups (top-level packages) held out; 0.05 is 5 % of the bytes.
    validation_fraction: Between0And1 = 0.05
    test_fraction: Between0And1 = 0.05


SECTIONS = (Runner, Data)


def run(c: ConfigDict, workdir: epath.PathLike) -> dict[str, Any]:
    """Prepares the corpus that the config describes.

    Returns:
      The content of prepare_data.json; {} if `data.corpus_dir` names another run.

    Raises:
      InputError: a bad source or setting, no text left, or a disk that refuses.
    """
    if c.data.corpus_dir:
        storage.manifest(epath.Path(c.data.corpus_dir) / "corpus")
        return {}
    about = check(c)
    workdir = epath.Path(workdir)
    settings = _settings(c)
    report = workdir / "prepare_data.json"
    if (workdir / "corpus" / "manifest.json").exists():
        _check_same(storage.manifest(workdir / "corpus")["settings"], settings, workdir)
        if report.exists():
            print(f"corpus: {workdir / 'corpus'} is finished, kept", flush=True)
            held = json.loads(report.read_text("utf-8"))
            _say_if_changed(held.get("files", ""), settings)
            return held
    start = time.time()
    with _steps(c, workdir) as folder:
        asked = runner.Settings(
            folder,
            settings["source"],
            [(name, settings["stage"][name]) for name in settings["stages"]],
            c.data.seconds,
            settings["python"] if settings["source"]["name"] == "stdlib" else "",
        )
        if c.runner == "beam":
            done = beam_runner.run(asked, c.runner_options)
        else:
            done = runner.run(asked, c.data.processes or workers.cores())
        _check_some(done, settings)
        side = split.sides(
            ((hashing.of_id(a["id"]), a["group"], a["bytes"]) for a in done.abouts()),
            validation_fraction=c.data.validation_fraction,
            test_fraction=c.data.test_fraction,
            links=done.links.T.tolist(),
        )
        result = {
            "source": settings["source"],
            "files": _files(settings),
            **done.given,
            "stages": [
                {**count, "about": about.get(count["name"], {})}
                for count in done.counts
            ],
            "links": done.links.shape[1],
            **_summaries(done.abouts(), side),
            "skipped": done.skipped,
            "settings": settings,
        }
        written = storage.write(
            workdir / "corpus",
            ((side[document.group], document) for document in done.documents()),
            settings,
        )
    result["hashes"] = {
        "documents read": f"{result.pop('digest'):032x}",
        "corpus": written["hash"],
        **{name: part["sha256"] for name, part in written["splits"].items()},
    }
    result["seconds"] = round(time.time() - start, 3)
    # Last: without it the corpus does not count as finished.
    files.write_text(report, json.dumps(result, indent=1))
    print(f"data card: {data_card.write(workdir)}", flush=True)
    for name, part in result["splits"].items():
        print(
            f"{name}: {part['documents']} documents in {part['group_count']} groups, "
            f"{units.size(part['bytes'])}",
            flush=True,
        )
    return result


def check(c: ConfigDict) -> dict[str, dict[str, Any]]:
    """What stages say of themselves, by their names.

    Raises:
      InputError: a corpus cannot be described so.
    """
    if c.runner_options and c.runner != "beam":
        raise InputError(
            got=f"runner_options with the runner {c.runner!r}",
            want="those of --config.runner=beam",
        )
    settings = _settings(c)
    _check_numbers("data.source", settings["source"])
    for name, knobs in settings["stage"].items():
        _check_numbers(f"data.stage.{name}", knobs)
    registry.build("sources", settings["source"])
    stages = {
        name: registry.build("stages", {"name": name, **knobs})
        for name, knobs in settings["stage"].items()
    }
    split.check_fractions(c.data.validation_fraction, c.data.test_fraction)
    said = {name: getattr(stage, "about", ()) for name, stage in stages.items()}
    return {name: dict(about) for name, about in said.items() if about}


def _check_numbers(place: str, knobs: dict[str, Any]) -> None:
    """All are counts, limits, shares and thresholds."""
    for name, value in knobs.items():
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            raise InputError(got=f"{place}.{name} {value}", want="0 or more")


@contextlib.contextmanager
def _steps(c: ConfigDict, workdir: epath.Path) -> Iterator[pathlib.Path]:
    """The folder of the steps: that of the config, else one that goes when all is done.

    It also goes when the input is at fault, since the same input is then not asked for
    again; it stays when the disk is, or when the run or a process of it was ended.
    """
    if c.data.work_dir:
        with files.lock(c.data.work_dir, _DOES):
            yield pathlib.Path(c.data.work_dir)
        return
    folder = pathlib.Path(workdir) / "work"
    with files.lock(folder, _DOES):  # who does not get it leaves it to who has it
        try:
            with files.writing(folder):
                yield folder
        except InputError as error:
            kept = isinstance(error, MachineError) and any(folder.glob("*/*.json"))
            if not kept:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        # Another start may look into it meanwhile, and be refused.
        shutil.rmtree(folder, ignore_errors=True)


def _check_some(done: runner.Result, settings: dict[str, Any]) -> None:
    """Says what the source left out; InputError if nothing is left."""
    told = "; ".join(f"{why}: {_counted(seen)}" for why, seen in done.skipped.items())
    if not done.given["documents"]:
        raise InputError(
            got=f"no documents from the source {settings['source']['name']!r}"
            + (f" ({told})" if told else ""),
            want="one text or more",
            do="see data.source in docs/config.md",
        )
    if told and settings["source"]["name"] != "stdlib":  # of which nobody chose any
        print(f"left out or mended by the source: {told}", flush=True)
        lost = sum(
            seen["documents"]
            for why, seen in done.skipped.items()
            if not why.startswith(NOTE)
        )
        read = lost + done.given["documents"]
        if 2 * lost >= read:
            print(
                f"the source dropped {lost} of {read} documents ({lost / read:.0%})",
                flush=True,
            )
    for count in done.counts:
        if line := _dropped(count):
            print(line, flush=True)
    _check_groups(done, settings["source"])
    if next(done.abouts(), None) is None:
        reasons = [
            f"{count['name']}, {reason}: {entry['documents']}"
            for count in done.counts
            for reason, entry in count["dropped"].items()
        ]
        raise InputError(
            got=f"{done.given['documents']} documents, all dropped "
            f"({'; '.join(reasons[:_REASONS])})",
            want="some text left",
            do="loosen the stages, see data.stage",
        )


def _dropped(count: dict[str, Any]) -> str:
    """What a stage dropped, as `fineweb drops 3 of 10 documents (30.0 %): …`; or ''."""
    reasons = {why: entry["documents"] for why, entry in count["dropped"].items()}
    total = sum(reasons.values())
    if not total:
        return ""
    most = sorted(reasons.items(), key=lambda item: -item[1])
    told = "; ".join(f"{why}: {number}" for why, number in most[:_REASONS])
    more = f"; {len(most) - _REASONS} reasons more" if len(most) > _REASONS else ""
    share = total / count["documents_in"]
    return (
        f"{count['name']} drops {total} of {count['documents_in']} documents "
        f"({share:.1%}): {told}{more}"
    )


def _check_groups(done: runner.Result, source: dict[str, Any]) -> None:
    """InputError if no document has the field that a split may not cut."""
    field = source.get("group")
    fields = "text" in source and field and field != source["id"]
    if fields and all(about["group"] == about["id"] for about in done.abouts()):
        raise InputError(
            got=f"data.source.group {field!r}, which no document has",
            want="a field of the records, or '' to split them one by one",
        )


def _files(settings: dict[str, Any]) -> str:
    """What tells that files of the source changed; '' for other sources."""
    source = registry.build("sources", settings["source"])
    return in_parts(source).fingerprint()


def _say_if_changed(before: str, settings: dict[str, Any]) -> None:
    """What a finished corpus is made of may also be gone by now."""
    try:
        now = _files(settings)
    except InputError:
        return
    if before and now != before:
        print(
            "its files are others than when it was made: they are not read again; "
            "for a corpus of them, take another workdir",
            flush=True,
        )


def _settings(c: ConfigDict) -> dict[str, Any]:
    """What the corpus depends on, as JSON gives it back."""
    settings = {
        "source": c.data.source.to_dict(),
        "stages": list(c.data.stages),
        "stage": {name: _knobs(c, name) for name in c.data.stages},
        "validation_fraction": c.data.validation_fraction,
        "test_fraction": c.data.test_fraction,
        "python": platform.python_version(),
    }
    return json.loads(json.dumps(settings))


def _knobs(c: ConfigDict, stage: str) -> dict[str, Any]:
    return c.data.stage[stage].to_dict() if stage in c.data.stage else {}


def _check_same(found: dict[str, Any], wanted: dict[str, Any], workdir) -> None:
    # The library of another interpreter is another text; that of a file is not.
    names = [n for n in wanted if n != "python" or wanted["source"]["name"] == "stdlib"]
    there, here = ({n: of.get(n) for n in names} for of in (found, wanted))
    other = run_dir.differences(there, here, "data.")
    if other:
        raise InputError(
            got=f"settings that differ from those of the corpus in {workdir} in "
            + "; ".join(other),
            want="the same settings",
            do="choose another workdir, or delete this one",
        )


def _counted(seen: dict[str, Any]) -> str:
    """`3 (a, b, …)`."""
    count, examples = seen["documents"], seen["examples"][:3]
    more = ", …" if count > len(examples) else ""
    return f"{count} ({', '.join(examples)}{more})"


def _summaries(abouts, side: dict[str, str]) -> dict[str, Any]:
    """What is in each split, and what the `meta` of all documents says."""
    made = {name: {"documents": 0, "bytes": 0, "raw_bytes": 0} for name in split.SPLITS}
    ids, facts, sums = set(), {}, {}
    for about in abouts:
        _note(about, facts, sums)
        part = made[side[about["group"]]]
        part["documents"] += 1
        part["bytes"] += about["bytes"]
        part["raw_bytes"] += about["raw_bytes"]
        digest = hashing.of_id(about["id"])
        if digest in ids:
            raise InputError(
                got=f"two documents with the id {about['id']!r}, made by a stage",
                want="one of each id",
            )
        ids.add(digest)
    for name, part in made.items():
        groups = sorted(group for group in side if side[group] == name)
        part |= {"groups": groups[:_GROUPS], "group_count": len(groups)}
    whole = [
        sum(part[name] for part in made.values()) for name in ("documents", "bytes")
    ]
    return {"splits": made, "facts": _telling(facts, whole), "sums": sums}


def _telling(facts, whole: list[int]):
    """The fields of few values: where most documents have one of their own, none.

    Under '' are the documents that have no such field, too; all add up to `whole`.
    """
    told = {}
    for name, found in facts.items():
        said = [sum(column) for column in zip(*found.values(), strict=True)]
        few = len(found) <= _FEW or 2 * len(found) <= said[0]
        if len(found) < _VALUES and few:
            silent = [all_of - some for all_of, some in zip(whole, said, strict=True)]
            if silent[0]:
                held = found.get("", [0, 0])
                found[""] = [a + b for a, b in zip(held, silent, strict=True)]
            told[name] = found
    return told


def _note(about: dict[str, Any], facts, sums) -> None:
    """Counts what one document says: fields of texts by value, fields of counts."""
    for name, value in about["meta"].items():
        if isinstance(value, str):
            # A field in which all differ, such as a URL, is not counted any further.
            found = facts.setdefault(name, {})
            if name == "timestamp":
                value = value[: len("2026-11")]
            if len(found) < _VALUES:
                entry = found.setdefault(value, [0, 0])
                entry[0] += 1
                entry[1] += about["bytes"]
        elif isinstance(value, dict) and all(
            isinstance(n, int) for n in value.values()
        ):
            found = sums.setdefault(name, {})
            for kind, count in value.items():
                found[kind] = found.get(kind, 0) + count
