"""Asks a trained classifier about texts: predict.json, a probability for each class."""

import json

import jax
from etils import epath
from ml_collections import ConfigDict

from llm import atomic, importing, run_directory
from llm.data.texts import texts_given
from llm.errors import InputError
from llm.inference import load
from llm.inference.classify import classifier

_SHOWN = 20  # texts that are printed


def run(c: ConfigDict, workdir: str) -> None:
    """Classifies the texts of `c.predict`."""
    p = c.predict
    texts = texts_given(p.path, p.texts, "predict")
    if p.batch_size < 1:
        raise InputError(got=f"predict.batch_size {p.batch_size}", want="1 or more")
    device, host = jax.devices()[0], jax.devices("cpu")[0]
    # First, so that a wrong path leaves nothing behind.
    loaded = load.load(importing.run_of(p.model_dir or workdir, workdir, host), device)
    predict = classifier(loaded, batch_size=p.batch_size)
    run_directory.claim(
        workdir, c.to_dict(), device=device.device_kind, devices=len(jax.devices())
    )
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
    atomic.write_text(
        epath.Path(workdir) / "predict.json", json.dumps(result, indent=1) + "\n"
    )
