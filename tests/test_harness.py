"""The harness and our own tasks say the same of the same items."""

import json

import jax
import pytest
from test_convert import make_run

from llm import config, harness, registry
from llm.errors import InputError
from llm.inference import load
from llm.inference.answer import answerer
from llm.task import Context, Generate, Rolling
from llm.workloads.evaluate import perform

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.oracle  # the harness alone takes long to begin

QUESTIONS = [
    {"question": f"def f{n}(a):\n    return", "choices": [" a", " self.b", " None + a"],
     "answer": n % 3}
    for n in range(7)
]  # fmt: skip
CHOICE = """
task: choices
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
target_delimiter: ""
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
ROLLING = """
task: texts
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: bits_per_byte}]
"""
UNTIL = """
task: answers
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{said}}"
generation_kwargs: {until: ["b"], max_gen_toks: 12, do_sample: false}
metric_list: [{metric: exact_match}]
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("run") / "run")
    return load.load(str(folder), jax.devices("cpu")[0])


def test_scores_are_equal(loaded, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    answer = answerer(loaded)
    asked = [Generate(q["question"], "b", 12, 0.0) for q in QUESTIONS]
    said = answer(asked)
    rows = [  # every other answer is what we generate
        q | {"said": s.text if n % 2 else "other"}
        for n, (q, s) in enumerate(zip(QUESTIONS, said, strict=True))
    ]
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in (("c", CHOICE), ("r", ROLLING), ("u", UNTIL)):
        (tmp_path / f"{name}.yaml").write_text(text.replace("FILE", str(path)))
    model = harness.language_model(loaded, batch_size=4)
    theirs = harness.evaluate(
        model, tasks=("choices", "texts", "answers"), folder=str(tmp_path)
    )
    ours, _ = perform(
        registry.build(
            "evals",
            {"name": "multiple_choice", "path": str(path), "prompt": "{question}",
             "continuation": "{choice}"},
            context=Context([], lambda: [], len),
        ),
        answer,
    )  # fmt: skip
    assert theirs["choices"]["acc,none"] == pytest.approx(ours["accuracy"])
    assert theirs["choices"]["acc_norm,none"] == pytest.approx(ours["accuracy_bytes"])
    scored = answer([Rolling(q["question"], end=False) for q in QUESTIONS])
    size = sum(len(q["question"].encode()) for q in QUESTIONS)
    bits = sum(s.nats for s in scored) / size / 0.6931471805599453
    assert theirs["texts"]["bits_per_byte,none"] == pytest.approx(bits, rel=1e-5)
    assert theirs["answers"]["exact_match,none"] == pytest.approx(3 / 7)


def test_what_is_not_there(loaded, tmp_path):
    with pytest.raises(InputError, match="harness tasks nothing"):
        harness.evaluate(None, tasks=("nothing",), folder=str(tmp_path))
    c = config.base()
    c.harness.folder = str(tmp_path / "none")
    with pytest.raises(InputError, match=r"harness\.folder"):
        registry.build("workloads", "harness")(c, str(tmp_path / "run"))
