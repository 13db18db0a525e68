"""Texts as vectors: embeddings.npy, a row a text, and embed.json."""

import io
from typing import Literal

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from llm import files, run_dir
from llm.data.input_texts import texts_given
from llm.inference.embeddings import POOLINGS, embedder
from llm.knobs import Count, Positive, section
from llm.workloads import claim, load

_BLOCK = 1024  # texts compared with all others at once


@section("embed")
class Embed:
    """Texts as vectors."""

    # As generate.model_dir.
    model_dir: str = ""
    # The texts: a file with one a line, or the texts themselves.
    path: str = ""
    texts: tuple[str, ...] = ()
    # How tokens make a vector: mean, first or last; and whether its length is made 1.
    pooling: Literal[POOLINGS] = "mean"
    normalise: bool = True
    # Tokens of a text that are read; 0 is as many as the model was trained with.
    max_tokens: Count = 0
    # Texts at once, and how many pairs of texts that are alike are printed.
    batch_size: Positive = 32
    pairs: Count = 5


SECTIONS = (Embed,)


def run(c: ConfigDict, workdir: str) -> None:
    """Embeds the texts of `c.embed` and prints those that are most alike."""
    texts = check(c)
    e = c.embed
    loaded = load(e.model_dir, workdir)
    embed = embedder(
        loaded.model,
        loaded.params,
        loaded.tokenizer,
        pooling=e.pooling,
        normalise=e.normalise,
        max_tokens=e.max_tokens or loaded.config.train.seq_len,
        batch_size=e.batch_size,
    )
    claim(c, workdir)
    vectors_ND, cut = embed(texts)
    pairs = most_alike(vectors_ND, e.pairs)
    for one, other, cosine in pairs:
        print(f"{cosine:.3f}  {texts[one]}\n       {texts[other]}")
    print(f"{len(texts)} texts as vectors of {vectors_ND.shape[1]}, {cut} cut to fit")
    root = epath.Path(workdir)
    held = io.BytesIO()
    np.save(held, vectors_ND, allow_pickle=False)
    files.write_bytes(root / "embeddings.npy", held.getvalue())
    result = {
        "texts": len(texts),
        "width": vectors_ND.shape[1],
        "cut": cut,
        "step": loaded.step,
        "most_alike": [
            {"texts": [texts[one], texts[other]], "cosine": cosine}
            for one, other, cosine in pairs
        ],
    }
    run_dir.write(workdir, "embed.json", result)


def check(c: ConfigDict) -> list[str]:
    """The texts to embed.

    Raises:
      InputError: no texts, an empty one, a file that cannot be read, or wrong knobs.
    """
    e = c.embed
    return texts_given(e.path, e.texts, "embed")


def most_alike(vectors_ND: np.ndarray, count: int) -> list[tuple[int, int, float]]:
    """The `count` pairs of vectors with the largest cosines, largest first."""
    size_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    unit_ND = vectors_ND / np.maximum(size_N1, 1e-12)
    best: list[tuple[int, int, float]] = []
    for first in range(0, len(unit_ND), _BLOCK):
        cosine_BN = unit_ND[first : first + _BLOCK] @ unit_ND.T
        # Each pair once, and nothing with itself.
        rows, columns = np.indices(cosine_BN.shape, sparse=True)
        cosine_BN[columns <= rows + first] = -np.inf
        flat = cosine_BN.reshape(-1)
        for at in np.argsort(-flat, kind="stable")[:count]:
            if flat[at] > -np.inf:
                one, other = divmod(int(at), len(unit_ND))
                best.append((first + one, other, float(flat[at])))
    return sorted(best, key=lambda pair: -pair[2])[:count]
