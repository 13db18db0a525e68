"""Languages are told apart, kept, dropped and written down."""

import builtins
import pathlib

import pytest

from llm.document import Document
from llm.errors import InputError
from llm.stages import language

TEXTS = {
    "en": "The committee will meet again in the spring to decide on the budget.",
    "de": "Der Ausschuss wird im Frühjahr wieder über den Haushalt entscheiden.",
    "fr": "La commission se réunira de nouveau au printemps pour le budget.",
    "es": "La comisión se reunirá de nuevo en primavera para decidir el presupuesto.",
    "ru": "Комиссия снова соберётся весной, чтобы решить вопрос о бюджете.",
    "zh": "委员会将在春天再次开会决定预算。",
    "ar": "ستجتمع اللجنة مرة أخرى في الربيع لاتخاذ قرار بشأن الميزانية.",
    "hi": "समिति बजट पर निर्णय लेने के लिए वसंत में फिर से बैठक करेगी।",
    "ja": "委員会は予算を決めるために春に再び会合を開きます。",
    "sw": "Kamati itakutana tena katika majira ya kuchipua kuamua kuhusu bajeti.",
}


def document(text):
    return Document("x", text, "s", "g", "prose", len(text), {"licence": "MIT"})


@pytest.fixture
def py3langid():
    return pytest.importorskip("py3langid")


@pytest.mark.parametrize("code", TEXTS)
def test_told_apart(py3langid, code):
    scores = language.make().score(document(TEXTS[code]))
    assert max(scores, key=scores.get) == code and len(scores) <= 3
    assert all(0 <= p <= 1 for p in scores.values())
    (made,) = language.make(label=True).apply(document(TEXTS[code]))
    assert made.meta["language"] == code and made.meta["licence"] == "MIT"
    assert made.meta["language_probability"] == scores[code]


def test_keeps_the_languages_asked_for(py3langid):
    stage = language.make(languages=("de", "sw"), least=0.6)
    kept = [c for c, text in TEXTS.items()
            if not stage.decide(stage.score(document(text)))]  # fmt: skip
    assert kept == ["de", "sw"]
    assert stage.decide({"en": 0.9}) == "not de, sw with probability 0.6"
    assert stage.decide({"en": 0.4, "de": 0.6}) == ""


def test_a_probability_decides_without_languages():
    stage = language.make(least=0.5)
    assert stage.decide({"en": 0.5, "sco": 0.4}) == ""
    assert stage.decide({"en": 0.45, "sco": 0.44}).startswith("not any language")
    assert stage.decide({}).startswith("not any language")


def test_only_the_beginning_is_read(py3langid):
    text = TEXTS["ru"] + " " + TEXTS["en"] * 20
    (made,) = language.make(label=True, characters=60).apply(document(text))
    assert made.meta["language"] == "ru"
    (made,) = language.make(label=True, characters=0).apply(document(text))
    assert made.meta["language"] == "en"


def test_nothing_to_read(py3langid):
    for text in ("", " \n"):
        (made,) = language.make(label=True).apply(document(text))
        assert made.meta["language"] == "" and made.meta["language_probability"] == 0
        assert language.make().score(document(text)) == {}


def test_fasttext_model_of_ones_own(tmp_path):
    pytest.importorskip("fasttext")
    # train_supervised on TEXTS, dim=6, minn=2, maxn=2, bucket=300. fastText's training
    # now and then stops with a NaN, so it is not trained here.
    path = str(pathlib.Path(__file__).parent / "golden" / "languages.bin")
    stage = language.make(languages=("fr",), model_path=path)
    for code, text in TEXTS.items():
        scores = stage.score(document(text + "\n" + text))
        assert max(scores, key=scores.get) == code
        assert (stage.decide(scores) == "") == (code == "fr")
    with pytest.raises(InputError, match="en-GB"):
        stage = language.make(languages=("en-GB",), model_path=path)
        stage.score(document("x"))
    (tmp_path / "words.txt").write_text("no model")
    for path in ("missing.bin", "words.txt"):
        with pytest.raises(InputError, match="model_path"):
            language.make(model_path=str(tmp_path / path)).score(document("x"))


def test_wrong_knobs(py3langid):
    with pytest.raises(InputError, match="least"):
        language.make(least=1.5)
    with pytest.raises(InputError, match="english; want some of ace, "):
        language.make(languages=("english",)).score(document("x"))


@pytest.mark.parametrize(("path", "extra"), [("", "data"), ("m.bin", "fasttext")])
def test_a_missing_package_is_one_line(monkeypatch, path, extra):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] in ("py3langid", "fasttext"):
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    language.identifier.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=rf"pip install .* -e \.\[{extra}\]"):
        language.make(model_path=path).score(document("x"))
