"""The whole way in its smallest form: what a run directory holds agrees."""

import json
import math
import pathlib
import shutil

import jax
import pytest

from llm import checkpoint, config, registry
from llm.corpus import storage
from llm.data import tokens
from llm.errors import InputError
from llm.inference import load_model
from llm.nn.contract import plain_inputs
from llm.stages.normalise import normalise
from llm.tokenizers import sentencepiece_tokenizer as tokenizers
from llm.workloads import evaluate, generate, pipeline

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


def small(name="quickstart"):
    return config.load(str(CONFIGS / "quickstart.py"), name, "debug")


@pytest.fixture(scope="module")
def c():
    c = small()
    c.optimizer.name, c.model.how = "adamw", "scan"  # quick to compile
    c.train.update(ema=0.9, validate_every=2)
    c.generate.update(prompts=("def f(x):", "import"), samples=2, stop=("\n\n",))
    return c


@pytest.fixture(scope="module")
def workdir(c, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pipeline")
    pipeline.run(c, str(workdir))
    return workdir


def read(workdir, name):
    return json.loads((workdir / f"{name}.json").read_text())


def test_everything_is_there(workdir):
    names = {p.name for p in workdir.iterdir()}
    assert names == {
        "config.json", "corpus", "tokenizer", "tokens", "checkpoints", "metrics.jsonl",
        "tensorboard", "report.html", "data_card.html", "samples.txt",
        "prepare_data.json", "processes.json",
        "train_tokenizer.json", "train.json", "evaluate.json", "generate.json",
        "evaluate_items.jsonl",
    }  # fmt: skip


def test_training(workdir, c):
    records = [
        json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()
    ]
    result = read(workdir, "train")
    assert [r["step"] for r in records] == [1, 2, 3] and result["steps"] == 3
    per_step = c.train.batch_size * c.train.seq_len
    assert result["tokens"] == records[-1]["tokens"] == 3 * per_step
    assert records[0]["loss"] == pytest.approx(math.log(512), abs=0.2)
    assert ["validation_loss" in r for r in records] == [False, True, True]
    assert result["validation_loss"] == records[-1]["validation_loss"]
    losses = {r["step"]: r["validation_loss"] for r in records[1:]}
    assert result["best_validation_loss"] == min(losses.values())
    assert losses[result["best_step"]] == result["best_validation_loss"]
    groups = result["optimizer_groups"]
    assert sum(g["parameters"] for g in groups) == result["parameters"]
    names = [name for group in groups for name in group["names"]]
    assert len(names) == len(set(names)) == sum(g["leaves"] for g in groups)
    for record in records:
        assert all(math.isfinite(v) for v in record.values() if isinstance(v, float))


def test_evaluation_is_of_the_whole_test_split(workdir):
    documents = storage.read(workdir / "corpus", "test")
    tokenizer = tokenizers.load(workdir / "tokenizer")
    split = tokens.open_split(workdir / "tokens", "test", tokenizer.fingerprint)
    result = read(workdir, "evaluate")
    assert result["split"] == "test"
    assert result["documents"] == len(documents)
    assert result["bytes"] == sum(d.raw_bytes for d in documents)
    # Every token but BOS, the end included.
    assert result["tokens"] == int(split.offsets[-1]) - len(documents)
    nats = math.log(result["perplexity"]) * result["tokens"]
    assert result["bits_per_byte"] == pytest.approx(
        nats / math.log(2) / result["bytes"], rel=1e-6
    )
    assert 0 <= result["token_accuracy"] <= 1
    # Of which weights it is: an interrupted evaluation goes on with these alone.
    params = load_model.load(str(workdir), jax.devices("cpu")[0]).params
    assert result["model"]["weights"] == checkpoint.digest(params)
    assert (
        result["syntax_samples"] == registry.module("evals", "syntax").TINY["samples"]
    )


def test_samples(workdir):
    result = read(workdir, "generate")
    prompts = [s["prompt"] for s in result["samples"]]
    assert prompts == ["def f(x):"] * 2 + ["import"] * 2
    text = (workdir / "samples.txt").read_text()
    for sample in result["samples"]:
        assert sample["prompt"] + sample["completion"] in text
        assert "\n\n" not in sample["completion"]
        assert sample["stop_reason"] in ("end", "stop", "length")


def content(workdir):
    return {
        str(p.relative_to(workdir)): p.read_bytes()
        for p in workdir.rglob("*")
        if p.is_file()
    }


def test_a_second_run_does_nothing_new(workdir, c, capsys):
    before = content(workdir)
    pipeline.run(c, str(workdir))
    out = capsys.readouterr().out
    assert out.count("done before") == 5 and "tok/s" not in out
    after = content(workdir)
    assert before.keys() == after.keys()
    assert {n for n in before if before[n] != after[n]} <= {"report.html"}


def test_it_goes_on_where_it_was(workdir, c, capsys):
    """Without its last result, only that is made again, and it is the same."""
    before = (workdir / "generate.json").read_bytes()
    (workdir / "generate.json").unlink()
    pipeline.run(c, str(workdir))
    assert capsys.readouterr().out.count("done before") == 4
    assert (workdir / "generate.json").read_bytes() == before


def test_lost_tokens_are_made_again(workdir, c, capsys):
    """A result without what it tells of is not done."""
    before = content(workdir)
    shutil.rmtree(workdir / "tokens")
    pipeline.run(c, str(workdir))
    assert capsys.readouterr().out.count("done before") == 4
    after = content(workdir)
    tokens = [n for n in before if n.startswith("tokens/")]
    assert tokens and all(before[n] == after[n] for n in tokens)


def test_another_config_is_refused(workdir, c):
    other = config.ConfigDict(c.to_dict())
    other.train.steps = 2  # it may be made longer, not shorter
    before = content(workdir)
    with pytest.raises(InputError, match=r"train.steps \(3 there, 2 here\)"):
        pipeline.run(other, str(workdir))
    assert content(workdir) == before


# What normalisation changes: line ends, trailing blanks, decomposed letters, a mark.
OUTSIDE = (
    "\ufeffdef fünf(x):   \r\n    return  x\t\r\n\r\n\r\n\r\n\r\nx = 'e\u0301'\r\n"
)


def test_outside_text_counts_its_raw_bytes(workdir, tmp_path):
    path = tmp_path / "outside.txt"
    path.write_bytes(OUTSIDE.encode())
    c = small("evaluate")
    c.evaluate.model_dir = str(workdir)
    c.evaluate.tasks = ("perplexity",)
    c.eval_text = str(path)
    evaluate.run(c, str(tmp_path / "evaluate"))
    result = read(tmp_path / "evaluate", "evaluate")
    got = result["eval_text"]
    assert got["path"] == str(path)
    assert got["bytes"] == len(OUTSIDE.encode()) and got["documents"] == 1
    # One window: a plain forward of the normalised text says the same.
    loaded = load_model.load(str(workdir), jax.devices()[0])
    cleaned = normalise(OUTSIDE)
    assert cleaned != OUTSIDE
    tokenizer = loaded.tokenizer
    ids = [tokenizer.bos_id, *tokenizer.encode(cleaned), tokenizer.eos_id]
    assert len(ids) <= 65

    def logits(m):
        output = m(plain_inputs(jax.numpy.array([ids[:-1]])))
        return m.head(output.hidden_BTD).logits(m.policy)

    made = jax.jit(lambda p: loaded.model.apply({"params": p}, method=logits))(
        loaded.params
    )
    log_p = jax.nn.log_softmax(made[0])
    nats = -sum(float(log_p[i, target]) for i, target in enumerate(ids[1:]))
    assert got["tokens"] == len(ids) - 1
    want = nats / math.log(2) / len(OUTSIDE.encode())
    assert got["bits_per_byte"] == pytest.approx(want, rel=1e-4)
    # The run itself scored the same split with the same figures.
    again = {k: result[k] for k in ("bits_per_byte", "perplexity", "token_accuracy")}
    for name, value in read(workdir, "evaluate").items():
        if name in again:
            assert again[name] == pytest.approx(value, rel=1e-6)


def test_the_average_of_the_best_step_is_used(workdir):
    """The run keeps an average: its weights are not those of the last step."""
    loaded = load_model.load(str(workdir), jax.devices()[0])
    assert loaded.step == read(workdir, "train")["best_step"]
    assert (workdir / "checkpoints" / str(loaded.step) / "ema").exists()


@pytest.mark.parametrize("run", [evaluate.run, generate.run])
def test_no_model_no_run(run, tmp_path):
    c = small("evaluate")
    c.generate = config.base("generate").generate
    c.evaluate.model_dir = c.generate.model_dir = str(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"has no config.json"):
        run(c, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_an_empty_text_is_bad_input(workdir, tmp_path):
    (tmp_path / "empty.txt").write_text(" \n")
    c = small("evaluate")
    c.evaluate.model_dir = str(workdir)
    c.evaluate.tasks = ()
    c.eval_text = str(tmp_path / "empty.txt")
    with pytest.raises(InputError, match="no text in"):
        evaluate.run(c, str(tmp_path / "run"))
