"""Training that begins with a model that there is."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_convert import CONFIGS, foreign_folder

from llm import config, registry, tree
from llm.checkpoint import Checkpoints
from llm.corpus import storage
from llm.data import chat
from llm.errors import InputError
from llm.inference import load_model
from llm.nn.contract import plain_inputs, with_head
from llm.workloads import pipeline, prepare_data

CPU = jax.devices("cpu")[0]


def run(workdir, name, **fields):
    arg = ",".join(["debug", *(f"{k}={v}" for k, v in fields.items())])
    c = config.load(str(CONFIGS / "x"), name, arg)
    c.generate.update(max_tokens=4)
    pipeline.run(c.lock(), str(workdir))
    return load_model.joined(str(workdir), CPU, which="last")


RECORDS = [
    {"instruction": f"Say {n}.", "output": f"{n}! and some more words"}
    for n in range(60)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("tokenizers")
    made = tmp_path_factory.mktemp("begin")
    foreign_folder(made / "hf", eos_token_id=2)
    (made / "data.json").write_text(json.dumps(RECORDS))
    return made


@pytest.fixture(scope="module")
def tuned(folder):
    fields = {"model": folder / "hf", "data": folder / "data.json"}
    return run(folder / "full", "sft", **fields)


def test_weights_tokenizer_and_template_are_those_of_the_model(folder, tuned):
    begun = load_model.load(str(folder / "full" / "model"), CPU)
    assert tuned.config.model == begun.config.model
    assert tuned.tokenizer.fingerprint == begun.tokenizer.fingerprint
    assert tuned.tokenizer.chat_template == begun.tokenizer.chat_template
    moved = tree.named_leaves(
        jax.tree.map(lambda a, b: np.abs(a - b).max(), tuned.params, begun.params)
    )
    # Three steps of AdamW: each weight moved a little, from where it was.
    assert 0 < max(map(float, moved.values())) < 1e-3


def test_loss_before_and_after_as_a_plain_loop_has_it(folder, tuned):
    """Of the answers of the test split, each conversation by itself."""
    found = json.loads((folder / "full" / "evaluate.json").read_text())
    begun = load_model.load(str(folder / "full" / "model"), CPU)
    best = load_model.load(str(folder / "full"), CPU)
    documents = storage.read(folder / "full" / "corpus", "test")
    for of, said in ((best, found), (begun, found["before"])):
        score, losses = jax.jit(with_head(of.model)), []
        for document in documents:
            messages = document.meta["record"]["messages"]
            ((ids, said_by),) = chat.conversations(of.tokenizer, messages)
            learned = said_by >= 0
            tokens = jnp.array([ids + [0] * (256 - len(ids))])
            output, head = score(of.params, plain_inputs(tokens))
            hidden = np.asarray(output.hidden_BTD[0, : len(ids) - 1], np.float64)
            logits = hidden @ np.asarray(head.kernel_DV, np.float64)
            logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
            own = -logits[np.arange(len(ids) - 1), ids[1:]]
            losses += own[learned[1:]].tolist()
        assert said["objective"]["loss"] == pytest.approx(np.mean(losses), rel=2e-3)


def test_a_second_run_does_nothing_again(folder, tuned, capsys):
    run(folder / "full", "sft", model=folder / "hf", data=folder / "data.json")
    assert capsys.readouterr().out.count("done before") == 5


def test_a_lora_run_needs_no_other(folder, tuned):
    """Its base lies beside it; joined with zero updates, it is the base."""
    fields = {"model": folder / "hf", "data": folder / "data.json", "adapter": "lora"}
    shutil.rmtree(folder / "lora", ignore_errors=True)
    joined = run(folder / "lora", "sft", **fields)
    base = load_model.load(str(folder / "lora" / "model"), CPU)
    shutil.rmtree(folder / "lora" / "model")
    merged = load_model.load(str(folder / "lora"), CPU)
    held = tree.named_leaves(merged.params)
    own = tree.named_leaves(base.params)
    changed = {n for n in own if (np.asarray(own[n]) != np.asarray(held[n])).any()}
    adapted = {
        name.removesuffix("/kernel/a") + "/kernel"
        for name in tree.named_leaves(joined.params)
        if name.endswith("/a")
    }
    assert changed and changed <= adapted
    leaves = {n for n in tree.named_leaves(joined.params) if n.endswith(("/a", "/b"))}
    saved = Checkpoints(str(folder / "lora"), ())
    assert leaves and saved._manager.all_steps()


def test_a_reference_is_kept_where_all_is_trained(folder):
    pairs = [
        {"prompt": [{"role": "user", "content": f"Say {n}."}], "chosen": f"{n}!",
         "rejected": "nothing"}
        for n in range(60)
    ]  # fmt: skip
    (folder / "pairs.json").write_text(json.dumps(pairs))
    fields = {"model": folder / "hf", "data": folder / "pairs.json"}
    loaded = run(folder / "dpo", "dpo", **fields)
    base = load_model.load(str(folder / "dpo" / "model"), CPU)
    kept = load_model.reference(loaded, str(folder / "dpo"))
    for name, leaf in tree.named_leaves(base.params).items():
        np.testing.assert_array_equal(leaf, tree.named_leaves(kept)[name])
    first = json.loads((folder / "dpo" / "metrics.jsonl").read_text().splitlines()[0])
    # The model is its reference before the first step: no margin, log 2.
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert first["margin"] == pytest.approx(0, abs=1e-5)
    report = json.loads((folder / "dpo" / "evaluate.json").read_text())
    assert report["objective"]["loss"] == pytest.approx(np.log(2), abs=0.1)


def test_a_classifier_begins_with_an_encoder(folder, capsys, tmp_path):
    """What the model lacks begins at random, and is said."""
    texts = [{"text": f"a text {n}", "label": "ab"[n % 2]} for n in range(60)]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    fields = {"model": folder / "hf", "data": tmp_path / "texts.json", "ask": "last"}
    loaded = run(tmp_path / "run", "classify", **fields)
    assert "new, at random: classifier/" in capsys.readouterr().out
    assert loaded.params["classifier"]["kernel"].shape[-1] == 2
    assert loaded.config.model.dropout == 0.1  # of configs/classify.py


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "/nowhere"}, "/nowhere"),
        ({"adapter": "none"}, "adapters 'none'"),
        ({"data": "/nowhere"}, r"no \.json"),
    ],
)
def test_refused(tmp_path, fields, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "x", "sft", **fields)


def test_preferences_and_conversations_are_not_mixed_up(folder, tmp_path):
    """Neither teaches the other: it would train on nothing, or on what is rejected."""
    pairs = [{"prompt": f"Say {n}.", "chosen": f"{n}!", "rejected": "no"}
             for n in range(60)]  # fmt: skip
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    fields = {"model": folder / "hf", "data": tmp_path / "pairs.json"}
    with pytest.raises(InputError, match=r"records with a rejected answer.*dpo\.py"):
        run(tmp_path / "sft", "sft", **fields)
    (tmp_path / "mixed.json").write_text(json.dumps(pairs + RECORDS))
    fields["data"] = tmp_path / "mixed.json"
    with pytest.raises(InputError, match=r"records without a rejected answer.*sft\.py"):
        run(tmp_path / "dpo", "dpo", **fields)
    assert not (tmp_path / "dpo/checkpoints").exists()


def test_plain_prompts_need_no_template(tmp_path):
    """They are asked as they were learned, to the end of the run."""
    plain = [{"prompt": f"{n} and ", "completion": f"{n + 1}."} for n in range(90)]
    (tmp_path / "plain.json").write_text(json.dumps(plain))
    assert not config.chats(str(tmp_path / "plain.json"))
    c = config.load(str(CONFIGS / "x"), "sft", f"debug,data={tmp_path / 'plain.json'}")
    c.generate.update(max_tokens=4)
    c.tokenizer.vocab_size = 300
    tiny = registry.module("models", "llama").TINY
    c.model = registry.spec("models", "llama", **tiny)
    pipeline.run(c.lock(), str(tmp_path / "run"))
    told = json.loads((tmp_path / "run/generate.json").read_text())
    assert told["samples"][0]["prompt"] == "Who are you?"


def test_a_domain_is_measured_beside_what_was_known(folder, tuned, tmp_path):
    """By default on the text that the model's own corpus held out."""
    (tmp_path / "text").mkdir()
    for n in range(40):
        body = f"Of chapter {n}, much could be said. " * 30
        (tmp_path / f"text/{n}.txt").write_text(body)
    run(tmp_path / "run", "domain", model=folder / "full", text=tmp_path / "text")
    found = json.loads((tmp_path / "run/evaluate.json").read_text())
    held_out = storage.read(folder / "full" / "corpus", "test")
    read = sum(document.raw_bytes for document in held_out)
    for figures in (found, found["before"]):
        assert figures["eval_text"]["bytes"] == read
    own, before = found["eval_text"], found["before"]["eval_text"]
    assert own["bits_per_byte"] != before["bits_per_byte"]


def test_what_is_left_out_is_said(tmp_path, capsys):
    said = [{"messages": [{"role": "user", "content": f"{n}"}]} for n in range(5)]
    (tmp_path / "data.json").write_text(json.dumps(said))
    with pytest.raises(InputError, match=r"no answer to learn: 5 \("):
        run(tmp_path / "none", "sft", data=tmp_path / "data.json")
    (tmp_path / "data.json").write_text(json.dumps(said[:2] + RECORDS))
    c = config.load(str(CONFIGS / "x"), "sft", f"debug,data={tmp_path / 'data.json'}")
    prepare_data.run(c, tmp_path / "some")
    assert "left out or mended by the source: " in capsys.readouterr().out
