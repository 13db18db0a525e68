"""Bad command lines: one line on stderr, exit code 2, and nothing written.

Each case is a process of its own that does what `python -m llm.main` does.
"""

import os
import pathlib
import subprocess
import sys

import forks
import pytest

ROOT = pathlib.Path(__file__).parent.parent
QUICK = "--config=configs/quickstart.py:debug"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """From words to (exit code, stdout, stderr)."""
    with forks.Server(tmp_path_factory.mktemp("runs")) as server:
        yield server.run


def assert_bad(answer, workdir, *shown):
    code, _, err = answer
    assert code == 2, err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("llm: got ") and "; want " in lines[0]
    for text in shown:
        assert text in lines[0], lines[0]
    assert not workdir.exists() or not list(workdir.iterdir())


FIELDS = [
    # An unknown field, with the one that was meant.
    ("train.step=3", "unknown field --config.train.step;", "did you mean 'steps'?"),
    ("optimizer.learning_rat=3", "learning_rat", "did you mean 'learning_rate'?"),
    ("trian.steps=3", "unknown field --config.trian.steps;", "did you mean 'train'?"),
    # A value of another type.
    ("train.steps=many", "many", "train.steps"),
    ("train.steps=2.5", "2.5", "train.steps"),
    ("optimizer.learning_rate=fast", "fast", "optimizer.learning_rate"),
    ("train.wandb=perhaps", "perhaps", "train.wandb"),
    ("mesh=data", "mesh"),
    # Names that are nothing.
    ("workload=trane", "workloads 'trane'", "did you mean 'train'?"),
    ("model.name=lama", "models 'lama'", "did you mean 'llama'?"),
    ("objective.name=masked", "objectives 'masked'", "one of causal_lm"),
    ("optimizer.name=adamm", "optimizer.name 'adamm'", "adamw"),
    ("schedule.name=cos", "schedule.name 'cos'", "cosine"),
    ("rules=zero", "rules 'zero'", "fsdp"),
    ("mesh=(('model',-1),)", "mesh axis 'model'", "tensor"),
    ("data.source.name=stdlibs", "sources 'stdlibs'", "did you mean 'stdlib'?"),
    ("data.stages=('normalize',)", "normalise"),
    ("evaluate.tasks=('perplexed',)", "evals 'perplexed'", "perplexity"),
    ("evaluate.split=held_out", "evaluate.split 'held_out'", "validation"),
    ("tokenizer.kind=bytes", "tokenizer.kind 'bytes'", "bpe"),
    # Values that do not fit.
    ("mesh=(('data',3),('fsdp',3))", "mesh (('data', 3), ('fsdp', 3))"),
    ("train.batch_size=0", "train.batch_size 0"),
    ("train.batch_size=9,train.accumulate=2", "batch_size 9 with 2 micro-batches"),
    ("train.accumulate=0", "train.accumulate 0", "1 or more"),
    ("train.tokens=1000", "train.steps=3, train.tokens=1000", "exactly one of"),
    ("train.steps=0", "no length", "exactly one of"),
    ("train.steps=-5", "train.steps -5", "0 or more"),
    ("train.dtype=float16", "train.dtype 'float16'", "bfloat16"),
    ("model.heads=3", "3 heads on 2 kv_heads"),
    ("model.how=fast", "model.how 'fast'", "unroll"),
    ("optimizer.decay=(kernel", "optimizer.decay '(kernel'", "regular expression"),
    ("generate.top_p=0.0", "top_p 0.0"),
    ("generate.temperature=-1.0", "temperature -1.0"),
    ("generate.stop=('',)", "generate.stop"),
    ("evaluate.overlap=1.0", "evaluate.overlap 1.0"),
    ("eval_text=nowhere.txt", "nowhere.txt"),
    ("data.test_fraction=0.99", "test_fraction 0.99"),
]


@pytest.mark.parametrize("given, shown", [(f[0], f[1:]) for f in FIELDS])
def test_fields(run, tmp_path, given, shown):
    # A comma before a name separates fields; one inside brackets does not.
    if "(" in given:
        words = [f"--config.{given}"]
    else:
        words = [f"--config.{field}" for field in given.split(",")]
    workdir = tmp_path / "run"
    assert_bad(run(QUICK, f"--workdir={workdir}", *words), workdir, *shown)


WORDS = [
    ([], "no --config"),
    (["--workdir=WORKDIR"], "no --config"),
    ([QUICK], "no --workdir"),
    ([QUICK, "--workdir="], "no --workdir"),
    ([QUICK, "--workdirr=WORKDIR"], "flag --workdirr", "did you mean 'workdir'?"),
    ([QUICK, "--workdir=WORKDIR", "more"], "argument 'more'"),
    (["--config=configs/nothing.py", "--workdir=WORKDIR"], "configs/quickstart.py"),
    (["--config", "configs/nothing.py", "--workdir=WORKDIR"], "configs/quickstart.py"),
    (["--config=configs", "--workdir=WORKDIR"], "--config=configs"),
    (["--config=configs/quickstart.py:debg", "--workdir=WORKDIR"], "'debg'", "'debug'"),
    (
        ["--config=configs/quickstart.py:debug=maybe", "--workdir=WORKDIR"],
        "config argument debug='maybe'", "a bool",
    ),
    (
        ["--config=configs/plan.py:model=2b", "--workdir=WORKDIR"],
        "config '2b'", "1b",
    ),
    (["--config.train.steps=3", "--workdir=WORKDIR"], "--config"),
]  # fmt: skip


@pytest.mark.parametrize("words, shown", [(w[0], w[1:]) for w in WORDS])
def test_words(run, tmp_path, words, shown):
    workdir = tmp_path / "run"
    words = [word.replace("WORKDIR", str(workdir)) for word in words]
    assert_bad(run(*words), workdir, *shown)


def test_a_corpus_that_is_not_there(run, tmp_path):
    workdir, text = tmp_path / "run", tmp_path / "text"
    config = f"--config=configs/quickstart.py:debug,text={text}"
    code, _, err = run(config, f"--workdir={workdir}")
    assert code == 2 and len(err.strip().splitlines()) == 1 and str(text) in err
    # The folder is not taken: the corrected command begins there.
    code, _, err = run(QUICK, f"--workdir={workdir}", "--config.train.accumulate=0")
    assert "train.accumulate 0" in err
    held = [p.name for p in workdir.iterdir()]
    assert set(held) <= {"config.json"}


@pytest.mark.parametrize("workload", ["evaluate", "generate", "train"])
def test_no_run_to_work_on(run, tmp_path, workload):
    workdir = tmp_path / "run"
    words = [f"--config.workload={workload}", f"--workdir={workdir}"]
    if workload != "train":
        words.append(f"--config.{workload}.model_dir={tmp_path / 'other'}")
    code, _, err = run(QUICK, *words)
    assert code == 2 and len(err.strip().splitlines()) == 1, err
    assert not workdir.exists() or {p.name for p in workdir.iterdir()} <= {
        "config.json"
    }


def test_help_is_quick_and_imports_no_jax():
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "llm.main", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    after = os.times()
    assert done.returncode == 0, done.stderr
    for shown in ("--config=configs/", "--config:", "--workdir:", "Exit codes"):
        assert shown in done.stdout
    imported = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    assert "absl.flags" in imported and "jax" not in imported
    spent = after.children_user - before.children_user
    assert spent + after.children_system - before.children_system < 2


def test_as_a_real_process(tmp_path):
    done = subprocess.run(
        [
            sys.executable, "-m", "llm.main", QUICK, f"--workdir={tmp_path / 'run'}",
            "--config.train.steps=many",
        ],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    answer = done.returncode, done.stdout, done.stderr
    assert_bad(answer, tmp_path / "run", "many")
