"""What later versions must still read: names of parameters and fields, and a small run.

    python tests/compatibility.py     # writes tests/golden/{names,run}.json, run.tar.gz

Run it only to add to these files. A parameter, a field or a file that changes here
breaks the checkpoints and commands of users. The archive holds a run that was stopped
after step 4 of 6, and its exports to Hugging Face's form and GGUF.
"""

import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

import flax.linen as nn
import jax
import tiny

from llm import config, registry, tree

ROOT = pathlib.Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
ARCHIVE = GOLDEN / "run.tar.gz"
# Of the workdir `run`, beside a folder `texts`.
TRAIN = [
    f"--config={ROOT}/configs/quickstart.py:text=texts,debug",
    "--workdir=run",
    *(
        f"--config.{words}"
        for words in (
            "model.width=16", "model.heads=2", "model.kv_heads=1", "model.head_dim=8",
            "model.mlp=32", "tokenizer.vocab_size=300", "train.steps=6",
            "train.checkpoint_every=4", "train.dtype=float32",
            "data.validation_fraction=0.2", "data.test_fraction=0.2",
        )
    ),
]  # fmt: skip
TEXTS = ("bisect", "string", "textwrap")


def greedy(model, workdir):
    """Words that continue a text by the likeliest tokens."""
    return [
        f"--config={ROOT}/configs/generate.py",
        f"--workdir={workdir}",
        f"--config.generate.model_dir={model}",
        "--config.generate.prompts=('def f(',)",
        "--config.generate.temperature=0.0",
        "--config.generate.max_tokens=12",
    ]


def convert(source, to, workdir):
    """Words that export `source` to hf or gguf, or import it for ''."""
    words = f"source={source}" + (f",to={to}" if to else "")
    return [f"--config={ROOT}/configs/convert.py:{words}", f"--workdir={workdir}"]


def parameters(models):
    """{model: {path: shape}} of the smallest form of each model."""
    names = {}
    for name in models:
        knobs = registry.module("models", name).TINY
        spec = registry.spec("models", name, **knobs)
        model = registry.build("models", spec, vocab_size=48)
        init = functools.partial(tiny.init, model)
        shapes = nn.meta.unbox(jax.eval_shape(init, jax.random.key(0)))
        shapes = tree.named_leaves(shapes)
        names[name] = {path: list(leaf.shape) for path, leaf in shapes.items()}
    return names


def flat(value, path=""):
    """{dotted name: value} of a config."""
    if not isinstance(value, dict) or not value:
        return {path: value}
    parts = {}
    for name, inner in value.items():
        parts |= flat(inner, f"{path}.{name}" if path else name)
    return parts


def fields():
    """{dotted name: default} of every field."""
    return flat(config.base().to_dict())


def changes():
    """{config: {dotted name: value}} that the shipped configs change."""
    found, base = {}, fields()
    for path in sorted((ROOT / "configs").glob("*.py")):
        if path.stem == "again":  # the config of a run
            continue
        values = flat(config.load(str(path), path.stem).to_dict())
        found[path.stem] = {
            name: value for name, value in values.items()
            if not is_default(name, value, base)
        }  # fmt: skip
    return found


def is_default(name, value, base):
    """Whether a field has its default: one of a config, or of a config within it."""
    while name not in base and "." in name:
        name = name.partition(".")[2]
    return name in base and base[name] == value


def files(workdir):
    """Names of the files of a run directory; array stores by their folder."""
    names = set()
    for path in sorted(pathlib.Path(workdir).rglob("*")):
        parts = path.relative_to(workdir).parts
        if path.is_file():
            depth = (
                3 if parts[0] == "checkpoints" else 1 if "events" in path.name else 9
            )
            names.add("/".join(parts[:depth]))
    return sorted(names)


def losses(workdir):
    """{step: loss} of a run."""
    lines = (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {str(r["step"]): r["loss"] for r in records if "loss" in r}


def keep_until(workdir, step):
    """A run as it was when its checkpoint of `step` was written."""
    workdir = pathlib.Path(workdir)
    for folder in (workdir / "checkpoints").iterdir():
        if folder.name != str(step):
            shutil.rmtree(folder)
    lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    before = [line for line in lines if json.loads(line)["step"] <= step]
    (workdir / "metrics.jsonl").write_text("".join(before))
    later = "train.json evaluate* generate.json samples.txt tensorboard report.html"
    for pattern in later.split():
        for path in workdir.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def lines(sections):
    """JSON with a line for each name."""

    def item(pair):
        return f"{json.dumps(pair[0])}: {json.dumps(pair[1])}"

    def section(values, inner):
        return "{\n" + ",\n".join(map(inner, values.items())) + "\n}"

    def nested(pair):
        return f"{json.dumps(pair[0])}: " + section(pair[1], item)

    parts = {
        name: section(values, item if name == "fields" else nested)
        for name, values in sections.items()
    }
    return (
        "{\n"
        + ",\n".join(f'"{name}": {text}' for name, text in parts.items())
        + "\n}\n"
    )


def main():
    """Writes the files."""
    names = {
        "parameters": parameters(registry.choices("models")),
        "fields": fields(),
        "configs": changes(),
    }
    (GOLDEN / "names.json").write_text(lines(names))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        texts = pathlib.Path("texts")
        texts.mkdir()
        for name in TEXTS:
            text = pathlib.Path(os.__file__).with_name(f"{name}.py").read_text()[:6000]
            (texts / f"{name}.txt").write_text(text)

        def run(words):
            subprocess.run(
                [sys.executable, "-m", "llm.main", *words],
                env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
                check=True,
            )

        run(TRAIN)
        expected = {
            "files": files("run"),
            "losses": losses("run"),
            "evaluate": json.loads(pathlib.Path("run/evaluate.json").read_text()),
        }
        keep_until("run", 4)
        run(greedy("run", "greedy"))
        expected["greedy"] = json.loads(
            pathlib.Path("greedy/generate.json").read_text()
        )
        run(convert("run", "hf", "hf"))
        run(convert("run", "gguf", "gguf"))
        (GOLDEN / "run.json").write_text(json.dumps(expected, indent=1) + "\n")
        with tarfile.open(ARCHIVE, "w:gz") as archive:
            for name in ("texts", "run", "hf", "gguf"):
                archive.add(name)


if __name__ == "__main__":
    main()
