"""Weights come in and go out; what is refused leaves nothing behind."""

import json
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import tiny
from reference_models import build, reference, reference_logits
from test_hf_tokenizer import byte_level
from test_sentencepiece_tokenizer import CODE

from llm import checkpoint, config, registry, run_dir, tree
from llm.checkpoint import Checkpoints, LoopState, State
from llm.errors import InputError
from llm.inference import load_model
from llm.inference.decoding import generate
from llm.inference.sampling import Sampling
from llm.interop import hf
from llm.models import llama
from llm.nn.contract import plain_inputs
from llm.nn.embedding import padded_vocab
from llm.tokenizers import chat_template, hf_tokenizer, sentencepiece_tokenizer
from llm.workloads import convert

KNOBS = {k: v for k, v in tiny.KNOBS.items() if k != "vocab_size"}
KNOBS |= {"width": 32, "qk_norm": False}
PROMPTS = ["def ", "the cat", ""]


def convert_config(source, to="", dtype=""):
    arg = f"debug,source={source},to={to},dtype={dtype}"
    return config.load(str(CONFIGS / "x"), "convert", arg).lock()


CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


def run(source, workdir, to="", dtype=""):
    convert.run(convert_config(source, to, dtype), str(workdir))


def make_run(folder, how="scan", **knobs):
    """A run directory with random weights and a tokenizer of ours."""
    c = config.debug(config.base())
    c.train.dtype = "float32"
    spec = registry.spec("models", "llama", **(KNOBS | {"how": how} | knobs))
    c.model = ml_collections.ConfigDict(spec)
    made = sentencepiece_tokenizer.train([CODE], folder / "tokenizer", vocab_size=330)
    size = padded_vocab(made.vocab_size)
    of = registry.build("models", spec, vocab_size=size)
    params = jax.tree.map(jnp.asarray, tiny.params(of))
    checkpoints = Checkpoints(str(folder), ())
    checkpoints.save(State(jnp.int32(7), params, None, None), LoopState(), None)
    checkpoints.close()
    run_dir.claim(str(folder), c.to_dict(), device="cpu", devices=1)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "trained")


def loaded(folder):
    return load_model.load(str(folder), jax.devices("cpu")[0])


def greedy(folder):
    one = loaded(folder)
    return generate(
        one.model, one.params, one.tokenizer, PROMPTS,
        knobs=Sampling(temperature=0.0), max_tokens=20,
    )  # fmt: skip


def real(folder):
    """Named parameters without what pads the vocabulary."""
    one = loaded(folder)
    size, padded = one.tokenizer.vocab_size, one.model.vocab_size
    found = {}
    for name, leaf in tree.named_leaves(one.params).items():
        cut = tuple(slice(0, size) if n == padded else slice(None) for n in leaf.shape)
        found[name] = np.asarray(leaf)[cut]
    return found


def same(one, other, **close):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, err_msg=name, **close)


def test_out_and_in_again(trained, tmp_path):
    run(trained, tmp_path / "hf", "hf")
    run(tmp_path / "hf", tmp_path / "back")
    same(real(trained), real(tmp_path / "back"), rtol=0, atol=0)
    one, again = loaded(trained), loaded(tmp_path / "back")
    assert again.tokenizer.encode(CODE[:2000]) == one.tokenizer.encode(CODE[:2000])
    assert (again.step, again.tokenizer.kind) == (0, "hf")
    assert again.config.model.name == "llama"
    names = {p.name for p in (tmp_path / "back").iterdir()}
    assert names == {"checkpoints", "config.json", "convert.json", "tokenizer"}
    # And an imported run goes out as it came.
    run(tmp_path / "back", tmp_path / "hf2", "hf")
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        first, second = ((tmp_path / d / name).read_bytes() for d in ("hf", "hf2"))
        assert first == second, name


@pytest.mark.parametrize("kind, close", [("f16", 1e-3), ("q8_0", 0.02), ("q4_0", 0.3)])
def test_out_and_in_by_gguf(trained, tmp_path, kind, close):
    run(trained, tmp_path / "g", "gguf", kind)
    assert {p.name for p in (tmp_path / "g").iterdir()} == {
        "model.gguf",
        "convert.json",
    }
    run(tmp_path / "g" / "model.gguf", tmp_path / "back")
    same(real(trained), real(tmp_path / "back"), rtol=1e-3, atol=close)
    one, other = (loaded(f).tokenizer for f in (trained, tmp_path / "back"))
    assert one.encode(CODE[:2000]) == other.encode(CODE[:2000])
    assert (other.start(), other.ends) == ([2], (3,))


def test_loops_are_stacked(tmp_path):
    folder = make_run(tmp_path / "loop", how="loop")
    run(folder, tmp_path / "hf", "hf")
    run(tmp_path / "hf", tmp_path / "back")
    inputs = plain_inputs(np.arange(3, 19, dtype=np.int32)[None])
    one, back = loaded(folder), loaded(tmp_path / "back")
    np.testing.assert_allclose(
        tiny.logits(back.model, back.params, inputs)[..., :330],
        tiny.logits(one.model, one.params, inputs)[..., :330],
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_smaller_numbers(trained, tmp_path, dtype):
    run(trained, tmp_path / "hf", "hf", dtype)
    run(tmp_path / "hf", tmp_path / "back")
    held = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert held["dtype"] == dtype and held["max_position_embeddings"] == 64
    want = {k: v.astype(dtype).astype(np.float32) for k, v in real(trained).items()}
    same(want, real(tmp_path / "back"), rtol=0, atol=0)


def foreign_folder(folder, **fields):
    """A Hugging Face folder of a tiny model with a tokenizer of another kind."""
    name, knobs, _, params, vocab = build("llama")
    folder.mkdir()
    hf.write(folder, name, knobs, params, vocab, special=fields)
    for file, text in byte_level().items():
        (folder / file).write_text(text)
    return name, knobs, params, vocab


def test_what_pads_the_vocabulary_is_seldom_likely(tmp_path):
    *_, vocab = foreign_folder(tmp_path / "hf", eos_token_id=2)
    run(tmp_path / "hf", tmp_path / "run")
    one = loaded(tmp_path / "run")
    embedding = np.asarray(one.params["embed"]["embedding"])
    mean = embedding[:vocab].mean(axis=0)
    np.testing.assert_allclose(
        embedding[vocab:], np.tile(mean, (len(embedding) - vocab, 1)),
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip
    kernel = np.asarray(one.params["head"]["kernel"])
    np.testing.assert_allclose(kernel[:, -1], kernel[:, :vocab].mean(1), atol=1e-6)
    # The model knows fewer tokens than its tokenizer: those others never come.
    assert set(range(vocab, one.tokenizer.vocab_size)) <= set(one.tokenizer.never)
    assert one.tokenizer.start() == []
    assert len(greedy(tmp_path / "run")) == len(PROMPTS)


@pytest.mark.oracle
def test_transformers_loads_what_goes_out(trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    import torch

    run(trained, tmp_path / "hf", "hf")
    ours = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    model = reference(tmp_path / "hf")
    one = loaded(trained)
    tokens = np.array([ours.encode("def f(x):\n    return")], np.int32)
    assert tokens.tolist() == [[2, *one.tokenizer.encode("def f(x):\n    return")]]
    with torch.no_grad():
        want = reference_logits(model, plain_inputs(tokens)).numpy()
    got = tiny.logits(one.model, one.params, plain_inputs(tokens))
    np.testing.assert_allclose(got[..., :330], want, rtol=1e-4, atol=1e-4)


def test_what_is_refused_leaves_nothing(trained, tmp_path):
    foreign_folder(tmp_path / "hf")
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "config.json").write_text("{")
    (tmp_path / "bare").mkdir()
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(10))
    for source, knobs, message in [
        ("", {}, "nothing to convert"),
        (tmp_path / "none", {}, "which does not exist"),
        (tmp_path / "bare", {}, "no config.json"),
        (tmp_path / "junk", {}, "not JSON"),
        (tmp_path / "x.gguf", {}, "fewer bytes"),
        (trained, {}, "a run directory already"),
        (tmp_path / "hf", {"to": "hf"}, "not a run directory"),
        (trained, {"to": "onnx"}, "convert.to 'onnx'"),
        (trained, {"to": "hf", "dtype": "q8_0"}, "dtype 'q8_0' for to=hf"),
        (trained, {"to": "gguf", "dtype": "float32"}, "want f16 or q8_0 or q4_0"),
        (tmp_path / "hf", {"dtype": "f16"}, "an import, which keeps float32"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            run(source, tmp_path / "out", **knobs)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="which is not empty"):
        run(trained, tmp_path / "hf", "hf")


@pytest.mark.parametrize("at", ["tokenizer.json", "model.safetensors", "config.json"])
def test_failures_on_the_way_leave_nothing(tmp_path, at):
    foreign_folder(tmp_path / "hf")
    path = tmp_path / "hf" / at
    if at == "config.json":
        held = json.loads(path.read_text()) | {"intermediate_size": 10**9}
        path.write_text(json.dumps(held))
    else:
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError):
        run(tmp_path / "hf", tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"hf"}


def test_numbers_beyond_float16(tmp_path):
    folder = make_run(tmp_path / "large")
    one = loaded(folder)
    params = jax.tree.map(lambda x: x * 1e6, one.params)
    checkpoints = Checkpoints(str(folder), ())
    checkpoints.save(State(jnp.int32(8), params, None, None), LoopState(), None)
    checkpoints.close()
    for to, dtype in (("hf", "float16"), ("gguf", "f16")):
        with pytest.raises(InputError, match="bfloat16"):
            run(folder, tmp_path / "out", to, dtype)
    assert {p.name for p in tmp_path.iterdir()} == {"large"}


def test_models_without_a_form_in_gguf(tmp_path):
    folder = make_run(tmp_path / "run", windows=(4,))
    with pytest.raises(InputError, match="a mistral, for GGUF"):
        run(folder, tmp_path / "out", "gguf")
    assert not (tmp_path / "out").exists()


def test_altered_tokenizers_are_noticed(tmp_path):
    foreign_folder(tmp_path / "hf")
    run(tmp_path / "hf", tmp_path / "run")
    path = tmp_path / "run" / "tokenizer" / "hf" / "tokenizer.json"
    path.write_text(path.read_text().replace("im_end", "im_END"))
    with pytest.raises(InputError, match="altered tokenizer"):
        loaded(tmp_path / "run")
    assert hf_tokenizer.KIND == "hf"


def use(workload, workdir, model_dir, **fields):
    """Runs a workload with a model; returns what it wrote."""
    c = config.debug(config.base())
    c.workload = workload
    c[workload].update(model_dir=str(model_dir), **fields)
    registry.build("workloads", workload)(c, str(workdir))
    return json.loads((workdir / f"{workload}.json").read_text())


def test_models_of_others_are_used_as_they_lie(tmp_path):
    """A folder is imported once, into the workdir; what comes is what a run gives."""
    foreign_folder(tmp_path / "hf", eos_token_id=2)
    run(tmp_path / "hf", tmp_path / "run")
    knobs = {"prompts": ("def", "the"), "temperature": 0.0, "max_tokens": 5}
    one = use("generate", tmp_path / "a", tmp_path / "run", **knobs)
    other = use("generate", tmp_path / "b", tmp_path / "hf", **knobs)
    assert one["samples"] == other["samples"]
    imported = tmp_path / "b" / "model"
    stamp = (imported / "config.json").stat().st_mtime_ns
    assert use("generate", tmp_path / "b", tmp_path / "hf", **knobs) == other
    assert (imported / "config.json").stat().st_mtime_ns == stamp
    foreign_folder(tmp_path / "hf2")
    with pytest.raises(InputError, match="one model a workdir"):
        use("generate", tmp_path / "b", tmp_path / "hf2", **knobs)


def test_an_imported_model_chats_by_its_template(tmp_path):
    foreign_folder(tmp_path / "hf", eos_token_id=2)
    run(tmp_path / "hf", tmp_path / "run")
    knobs = {"temperature": 0.0, "max_tokens": 6}
    chat = use("generate", tmp_path / "chat", tmp_path / "run", chat=True,
               prompts=("Hello",), **knobs)  # fmt: skip
    template = loaded(tmp_path / "run").tokenizer.chat_template
    asked = [{"role": "user", "content": "Hello"}]
    text = chat_template.prompt(template, asked)
    assert text.startswith("<|im_start|>user\nHello<|im_end|>")
    spelled = use("generate", tmp_path / "spelled", tmp_path / "run",
                  prompts=(text,), **knobs)  # fmt: skip
    (said,), (want,) = chat["samples"], spelled["samples"]
    assert said["completion"] == want["completion"] and said["prompt"] == "Hello"


def test_beams_come_best_first(trained, tmp_path):
    knobs = {"prompts": ("def ",), "beams": 3, "samples": 2, "max_tokens": 4}
    made = use("generate", tmp_path / "a", trained, temperature=0.0, **knobs)
    assert len(made["samples"]) == 2
    assert made["sampling"] == {"beams": 3, "length_penalty": 1.0}
    with pytest.raises(InputError, match="temperature 0, as a search"):
        use("generate", tmp_path / "b", trained, temperature=0.5, **knobs)
    with pytest.raises(InputError, match="without a chat template"):
        use("generate", tmp_path / "b", trained, chat=True)
    assert not (tmp_path / "b").exists()


def test_an_imported_model_is_scored_on_a_text(tmp_path):
    """It has no corpus; the likelihood is that of the written-out sum."""
    foreign_folder(tmp_path / "hf", eos_token_id=2)
    (tmp_path / "text.txt").write_text("def f(x):\n    return x\n")
    c = config.debug(config.base())
    c.workload, c.eval_text = "evaluate", str(tmp_path / "text.txt")
    c.evaluate.update(model_dir=str(tmp_path / "hf"), tasks=())
    registry.build("workloads", "evaluate")(c, str(tmp_path / "e"))
    found = json.loads((tmp_path / "e" / "evaluate.json").read_text())["eval_text"]
    one = loaded(tmp_path / "e" / "model")
    assert one.tokenizer.start() == []  # then BOS stands before it, as for the harness
    start = one.tokenizer.bos_id
    ids = [start, *one.tokenizer.encode("def f(x):\n    return x\n"), 2]
    logits = tiny.logits(one.model, one.params, plain_inputs(np.array([ids[:-1]])))
    log = jax.nn.log_softmax(logits[0, :, : one.tokenizer.vocab_size])
    nats = -float(log[np.arange(len(ids) - 1), ids[1:]].sum())
    np.testing.assert_allclose(found["perplexity"], np.exp(nats / (len(ids) - 1)),
                               rtol=1e-4)  # fmt: skip


def test_a_look_inside_a_model_without_a_first_token(tmp_path):
    foreign_folder(tmp_path / "hf", eos_token_id=2)
    use("interpret", tmp_path / "look", tmp_path / "hf", prompt="def f(x):")
    page = (tmp_path / "look" / "interpret.html").read_text()
    assert "def" in page and "&lt;bos" not in page


def test_a_classifier_is_not_dropped_in_silence(trained, tmp_path, monkeypatch):
    given = loaded(trained)
    params = {**given.params, "classifier": {"bias": jnp.zeros(2)}}
    monkeypatch.setattr(load_model, "load", lambda *_: given._replace(params=params))
    with pytest.raises(InputError, match="which has a classifier, for hf"):
        run(trained, tmp_path / "out", "hf")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_looked_into(trained, tmp_path):
    with pytest.raises(InputError, match=r"0 tokens|interpret.top 100000"):
        use("interpret", tmp_path / "a", trained, top=100_000)
    with pytest.raises(InputError, match="want texts, such as"):
        use("generate", tmp_path / "b", trained, prompts=(3,))
    assert not (tmp_path / "b").exists()


PEAK = """
import sys, threading, time, ml_collections
sys.path.insert(0, {tests!r})
from test_convert import convert_config
from llm.workloads import convert

def held():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(x.split()[1]) << 10 for x in lines if x.startswith("RssAnon"))

import jax
jax.block_until_ready(jax.numpy.ones(3) + 1)
base, peak, over = held(), 0, False

def watch():
    global peak
    while not over:
        peak = max(peak, held())
        time.sleep(0.005)

thread = threading.Thread(target=watch)
thread.start()
convert.run(convert_config({source!r}, to={to!r}), {out!r})
over = True
thread.join()
print("PEAK", peak - base)
"""


DECODERS = [
    name for name in registry.choices("models")
    if registry.module("models", name).KIND == "causal"
]  # fmt: skip


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_is_exported_with_its_context(name):
    """Else readers take the default of its family, for which it was not trained."""
    module = registry.module("models", name)
    knobs = registry.knobs("models", name) | module.TINY
    loaded = load_model.Loaded(
        model=registry.build("models", {"name": name, **knobs}, vocab_size=128),
        objective=None,
        params=None,
        tokenizer=types.SimpleNamespace(bos_id=-1, pad_id=-1, ends=()),
        config=ml_collections.ConfigDict({"train": {"seq_len": 64}}),
        step=0,
    )
    special = convert._special(loaded, name, knobs, 128)
    fields = module.HF.config(knobs, 128) | special
    learned = knobs.get("length", 0)
    field = "n_positions" if learned else "max_position_embeddings"
    assert fields[field] == (learned or 64)


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="no /proc")
def test_memory_of_import_and_export(tmp_path):
    """Beside the model, some tensors of it and what is read or written at once."""
    pytest.importorskip("tokenizers")
    knobs = {
        "layers": 24, "width": 512, "heads": 8, "kv_heads": 8, "head_dim": 64,
        "mlp": 2048,
    }  # fmt: skip
    model = llama.make(vocab_size=512, tied=True, **knobs)
    spec = registry.spec("models", "llama", **knobs, tied=True)
    del spec["name"]
    foreign_folder(tmp_path / "hf")
    hf.write(tmp_path / "hf", "llama", spec, tiny.params(model), 402)
    size = sum(f.stat().st_size for f in (tmp_path / "hf").glob("*.safetensors"))
    assert size > 3e8
    for source, to, out in (("hf", "", "run"), ("run", "hf", "again")):
        code = PEAK.format(
            tests=str(pathlib.Path(__file__).parent), source=str(tmp_path / source),
            to=to, out=str(tmp_path / out),
        )  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        peak = int(done.stdout.rpartition("PEAK")[2])
        print(f"{to or 'import'}: {peak / size:.2f} of the model")
        assert peak - size < 3 * checkpoint._IN_FLIGHT
