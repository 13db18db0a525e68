"""The harness and our own tasks say the same of the same items."""

import json

import jax
import pytest
import served
from test_convert import make_run

from llm import config, registry
from llm.errors import InputError
from llm.evals import Context
from llm.inference import lm_eval_model, load_model
from llm.inference.answer_requests import answerer
from llm.inference.requests import Generate, Rolling
from llm.workloads import convert
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
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def loaded(run):
    return load_model.load(str(run), jax.devices("cpu")[0])


TASKS = ("choices", "texts", "answers")


@pytest.fixture(scope="module")
def folder(loaded, tmp_path_factory):
    """The tasks, half of whose answers are what we generate."""
    folder = tmp_path_factory.mktemp("tasks")
    said = answerer(loaded)([Generate(q["question"], "b", 12, 0.0) for q in QUESTIONS])
    rows = [
        q | {"said": s.text if n % 2 else "other"}
        for n, (q, s) in enumerate(zip(QUESTIONS, said, strict=True))
    ]
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in (("c", CHOICE), ("r", ROLLING), ("u", UNTIL)):
        (folder / f"{name}.yaml").write_text(text.replace("FILE", str(path)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
        yield folder


def test_scores_are_equal(loaded, folder):
    path, answer = folder / "items.jsonl", answerer(loaded)
    model = lm_eval_model.language_model(loaded, batch_size=4)
    theirs = lm_eval_model.evaluate(model, tasks=TASKS, folder=str(folder))
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


def test_scores_over_http_are_equal(run, loaded, tmp_path):
    """The harness's `local-completions`, against our server, as against our harness."""
    api = pytest.importorskip("lm_eval.models.openai_completions")
    pytest.importorskip("tenacity")  # of the harness's extra `api`
    c = config.base()
    c.convert.update(source=str(run), to="hf")
    convert.run(c, str(tmp_path / "hf"))
    service, _ = served.make_service(
        loaded.model, loaded.params, tokenizer=loaded.tokenizer
    )
    with served.running(service) as url:

        def remote(**more):
            return api.LocalCompletionsAPI(
                base_url=f"{url}/v1/completions", model="tiny",
                tokenizer=str(tmp_path / "hf"), tokenizer_backend="huggingface", **more,
            )  # fmt: skip

        model = lm_eval_model.language_model(loaded)
        theirs = answers(remote(add_bos_token=True))
        assert theirs == pytest.approx(answers(model), abs=1e-3)
        # Windows of 64, less what it keeps free; it puts BOS before them by itself.
        theirs = rolling(remote(max_length=66))
        model = lm_eval_model.language_model(loaded, max_tokens=64)
        assert theirs == pytest.approx(rolling(model), abs=1e-3)


def instances(kind, *arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, given, n) for n, given in enumerate(arguments)]


def answers(model):
    """Log-likelihoods of all choices, whether they are greedy, and generated texts."""
    pairs = [(q["question"], choice) for q in QUESTIONS for choice in q["choices"]]
    knobs = {"until": ["b"], "max_gen_toks": 12, "do_sample": False}
    prompts = [(q["question"], dict(knobs)) for q in QUESTIONS]
    scored = model.loglikelihood(instances("loglikelihood", *pairs))
    texts = model.generate_until(instances("generate_until", *prompts))
    assert any(texts)
    return [figure for pair in scored for figure in pair] + texts


def rolling(model):
    """Log-likelihoods of whole texts, of several windows."""
    texts = [(q["question"] * 9,) for q in QUESTIONS]
    return model.loglikelihood_rolling(instances("loglikelihood_rolling", *texts))


def test_what_is_not_there(loaded, tmp_path):
    with pytest.raises(InputError, match="harness tasks nothing"):
        lm_eval_model.evaluate(None, tasks=("nothing",), folder=str(tmp_path))
    c = config.base()
    c.harness.folder = str(tmp_path / "none")
    with pytest.raises(InputError, match=r"harness\.folder"):
        registry.build("workloads", "harness")(c, str(tmp_path / "run"))
