"""Asks a trained classifier about texts: predict.json, a probability for each class."""

from ml_collections import ConfigDict

from llm import run_dir
from llm.data.input_texts import texts_given
from llm.inference.class_probabilities import classifier
from llm.knobs import Positive, section
from llm.workloads import claim, load

_SHOWN = 20  # texts that are printed


@section("predict")
class Predict:
    """Classes of texts."""

    # As generate.model_dir; a classifier of texts.
    model_dir: str = ""
    # The texts: a file with one a line, or the texts themselves; and texts at once.
    path: str = ""
    texts: tuple[str, ...] = ()
    batch_size: Positive = 32


SECTIONS = (Predict,)


def run(c: ConfigDict, workdir: str) -> None:
    """Classifies the texts of `c.predict`."""
    p = c.predict
    texts = texts_given(p.path, p.texts, "predict")
    loaded = load(p.model_dir, workdir)
    predict = classifier(loaded, batch_size=p.batch_size)
    claim(c, workdir)
    answers = predict(texts)
    for text, answer in list(zip(texts, answers, strict=True))[:_SHOWN]:
        print(f"{answer.probabilities[answer.best]:6.1%}  {answer.best:16} {text:.60}")
    result = {
        "step": loaded.step,
        "predictions": [
            {"text": text, "best": answer.best, "probabilities": answer.probabilities}
            for text, answer in zip(texts, answers, strict=True)
        ],
    }
    run_dir.write(workdir, "predict.json", result)
