"""Asks a trained classifier about texts: predict.json, a probability for each class."""

import json

import jax
from etils import epath
from ml_collections import ConfigDict

from llm import files, run_dir
from llm.data.input_texts import texts_given
from llm.errors import InputError
from llm.inference import import_model, load_model
from llm.inference.class_probabilities import classifier

_SHOWN = 20  # texts that are printed


def run(c: ConfigDict, workdir: str) -> None:
    """Classifies the texts of `c.predict`."""
    p = c.predict
    texts = texts_given(p.path, p.texts, "predict")
    if p.batch_size < 1:
        raise InputError(got=f"predict.batch_size {p.batch_size}", want="1 or more")
    device, host = jax.devices()[0], jax.devices("cpu")[0]
    # First, so that a wrong path leaves nothing behind.
    loaded = load_model.load(
        import_model.run_of(p.model_dir or workdir, workdir, host), device
    )
    predict = classifier(loaded, batch_size=p.batch_size)
    run_dir.claim(
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
    files.write_text(
        epath.Path(workdir) / "predict.json", json.dumps(result, indent=1) + "\n"
    )
