"""From a web site to a trained model: crawl, clean, card, tokens, three steps."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import website

from llm.corpus import storage
from llm.data import tokens

for package in ("scrapy", "warcio", "fastwarc", "resiliparse", "py3langid"):
    pytest.importorskip(package)
ROOT = pathlib.Path(__file__).parent.parent


def run(*words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "llm.main", *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def crawled(tmp_path_factory):
    """A crawl of the whole site, and what was asked of it."""
    folder = tmp_path_factory.mktemp("crawl")
    with website.served(website.pages()) as (url, asked):
        run(
            "--config=configs/crawl.py", f"--workdir={folder}",
            f"--config.crawl.start=('{url}',)", "--config.crawl.delay=0.0",
            "--config.crawl.contact=https://example.org/",
            "--config.crawl.private_hosts=('127.0.0.1',)", "--config.crawl.depth=12",
        )  # fmt: skip
    return folder, asked


@pytest.fixture(scope="module")
def trained(crawled, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("web")
    said = run(
        f"--config=configs/data_web.py:path={crawled[0] / 'pages'},group=page,debug",
        f"--workdir={workdir}", "--config.data.source.max_documents=0",
        "--config.tokenizer.vocab_size=600",
    )  # fmt: skip
    return workdir, said


def test_the_crawl_is_whole_and_polite(crawled):
    folder, asked = crawled
    told = json.loads((folder / "crawl.json").read_text())
    assert told["pages"]["127.0.0.1"] >= 212
    articles = {path for path in asked if re.fullmatch(r"/../\d+\.html", path)}
    assert len(articles) == 210
    assert "/private/secret.html" not in asked
    assert len([path for path in asked if path.startswith("/calendar/")]) <= 12
    assert len(asked) - 2 <= len(set(asked))  # but for robots.txt, nothing twice


def test_the_corpus_is_clean(trained):
    workdir, _ = trained
    told = json.loads((workdir / "prepare_data.json").read_text())
    documents = [
        d for split in ("train", "validation", "test")
        for d in storage.read(workdir / "corpus", split)
    ]  # fmt: skip
    text = "\n".join(d.text for d in documents)
    assert not any(planted in text for planted in website.PLANTED)
    kinds = set(re.findall(r"\[([A-Z_]+)\]", text))
    assert kinds == {"EMAIL", "CREDIT_CARD", "PHONE"}
    assert told["sums"]["pii"] == {"credit_card": 1, "email": 1, "phone": 1}
    assert text.count(website.NOTICE) == 1
    assert "Imprint" not in text and "secret" not in text
    languages = {d.meta["language"] for d in documents}
    assert languages == {"en", "de", "fr"}
    stages = {stage["name"]: stage for stage in told["stages"]}
    gone = {
        name: sum(entry["documents"] for entry in stage["dropped"].values())
        for name, stage in stages.items()
    }
    # Ten pages came twice, thirty had near copies; a few of them were dropped before.
    assert 8 <= gone["exact_dedup"] <= 10 and 25 <= gone["minhash"] <= 30
    assert gone["gopher_quality"] + gone["gopher_repetition"] >= 3
    assert 165 <= len(documents) <= 176
    pages = {d.meta["url"].rpartition("/")[2] for d in documents}
    assert not {"thin.html", "list.html", "deep.html"} & pages
    (latin,) = [d for d in documents if d.meta["url"].endswith("latin.html")]
    assert "ê" in latin.text or "è" in latin.text or "é" in latin.text


def test_token_shards_and_a_model(trained):
    workdir, said = trained
    train = tokens.open_split(workdir / "tokens", "train")
    assert sum(len(shard) for shard in train.shards) > 10_000
    assert np.diff(train.offsets).min() > 10
    assert json.loads((workdir / "train.json").read_text())["steps"] == 3
    assert "data card: " in said and "report: " in said


def test_the_card_says_what_became_of_the_pages(trained):
    html = (trained[0] / "data_card.html").read_text()
    for words in (
        "minhash", "gopher_quality", "warc, en", "warc, de", "warc, fr",
        "near duplicate", "pii: found", "email", "documents read", "bytes per token",
        "/en/",
    ):  # fmt: skip
        assert words in html, words
    told = json.loads((trained[0] / "prepare_data.json").read_text())
    assert told["hashes"]["corpus"] in html
    assert "<script" not in html
