"""From a source to a clean, split corpus: `workdir/corpus/` and `prepare_data.json`.

Reads c.data (source, stages, stage, fractions). A finished corpus of the same settings
is kept as it is; one of other settings is never overwritten.
"""

import collections
import json
import platform
import time
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from llm import atomic, registry, units
from llm.data import corpus, runner, split
from llm.errors import InputError

_EXAMPLES = 3  # ids shown for each reason


def run(c: ConfigDict, workdir: epath.PathLike) -> dict[str, Any]:
    """Prepares the corpus that the config describes.

    Returns:
      The content of prepare_data.json; {} if `data.corpus_dir` names another run.

    Raises:
      InputError: a bad source or setting, no text left, or a disk that refuses.
    """
    if c.data.corpus_dir:
        corpus.manifest(epath.Path(c.data.corpus_dir) / "corpus")
        return {}
    workdir = epath.Path(workdir)
    settings = _settings(c)
    report = workdir / "prepare_data.json"
    if (workdir / "corpus" / "manifest.json").exists():
        _check_same(corpus.manifest(workdir / "corpus")["settings"], settings, workdir)
        if report.exists():
            print(f"corpus: {workdir / 'corpus'} is finished, kept", flush=True)
            return json.loads(report.read_text())
    start = time.time()
    # First, so that a disk that cannot be written fails at once.
    atomic.make_folder(workdir)
    stages = [
        (name, registry.build("stages", {"name": name, **settings["stage"][name]}))
        for name in settings["stages"]
    ]
    skipped = collections.defaultdict(lambda: {"documents": 0, "examples": []})

    def skip(reason: str, id: str) -> None:
        entry = skipped[reason]
        entry["documents"] += 1
        if len(entry["examples"]) < _EXAMPLES:
            entry["examples"].append(id)

    documents = list(registry.build("sources", settings["source"])(skip))
    told = "; ".join(f"{reason}: {_counted(seen)}" for reason, seen in skipped.items())
    if not documents:
        raise InputError(
            got=f"no documents from the source {settings['source']['name']!r}"
            + (f" ({told})" if told else ""),
            want="one text or more",
            do="see data.source in llm/fields.py",
        )
    if told and settings["source"]["name"] != "stdlib":  # of which nobody chose any
        print(f"left out by the source: {told}", flush=True)
    done = runner.run(stages, documents)
    if not done.documents:
        raise InputError(
            got=f"{len(documents)} documents, all dropped by {settings['stages']}",
            want="some text left",
            do="loosen the stages, see data.stage",
        )
    splits = split.split(
        done.documents,
        validation_fraction=c.data.validation_fraction,
        test_fraction=c.data.test_fraction,
        links=done.links,
    )
    result = {
        "source": settings["source"],
        "documents": len(documents),
        "raw_bytes": sum(document.raw_bytes for document in documents),
        "stages": done.counts,
        "links": len(done.links),
        "splits": {name: _summary(parts) for name, parts in splits.items()},
        "skipped": dict(skipped),
        "seconds": round(time.time() - start, 3),
    }
    corpus.write(workdir / "corpus", splits, settings)
    # Last: without it the corpus does not count as finished.
    atomic.write_text(report, json.dumps(result, indent=1))
    for name, part in result["splits"].items():
        print(
            f"{name}: {part['documents']} documents in {len(part['groups'])} groups, "
            f"{units.size(part['bytes'])}",
            flush=True,
        )
    return result


def check(c: ConfigDict) -> None:
    """Raises InputError for a corpus that cannot be described so."""
    settings = _settings(c)
    registry.build("sources", settings["source"])
    for name, knobs in settings["stage"].items():
        registry.build("stages", {"name": name, **knobs})
    split.check_fractions(c.data.validation_fraction, c.data.test_fraction)


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
    other = [n for n in names if found.get(n) != wanted[n]]
    if other:
        differences = (f"data.{n} {found.get(n)}, now {wanted[n]}" for n in other)
        raise InputError(
            got=f"a corpus in {workdir} that was made with {'; '.join(differences)}",
            want="the same settings",
            do="choose another workdir, or delete this one",
        )


def _counted(seen: dict[str, Any]) -> str:
    """`3 documents (a, b, …)`."""
    count, examples = seen["documents"], seen["examples"][:3]
    more = ", …" if count > len(examples) else ""
    return f"{count} document{'s' * (count != 1)} ({', '.join(examples)}{more})"


def _summary(documents) -> dict[str, Any]:
    return {
        "documents": len(documents),
        "bytes": runner.text_bytes(documents),
        "raw_bytes": sum(document.raw_bytes for document in documents),
        "groups": sorted({document.group for document in documents}),
    }
