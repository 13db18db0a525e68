"""The tokenizer and the tokens of a run belong together and to its corpus."""

import json
import re
import shutil
import string

import data_config
import numpy as np
import pytest

from llm.corpus import storage
from llm.data import tokenizer_report, tokens
from llm.document import Document
from llm.errors import InputError
from llm.tokenizers import sentencepiece_tokenizer
from llm.workloads import prepare_data, train_tokenizer


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    prepare_data.run(data_config.make(), workdir)
    return workdir, train_tokenizer.run(data_config.make(), workdir)


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run"


def test_report_agrees_with_the_files(trained):
    workdir, result = trained
    assert result == json.loads((workdir / "train_tokenizer.json").read_text())
    loaded = sentencepiece_tokenizer.load(workdir / "tokenizer")
    assert result["vocab_size"] == loaded.vocab_size == 512
    assert result["fingerprint"] == loaded.fingerprint
    used = set()
    for name in ("train", "validation", "test"):
        documents = storage.read(workdir / "corpus", name)
        split = tokens.open_split(workdir / "tokens", name, loaded.fingerprint)
        assert split.ids == tuple(d.id for d in documents)
        assert result["tokens"][name] == split.offsets[-1]
        size = sum(len(d.text.encode()) for d in documents)
        ratio = result["bytes_per_token"][name]
        assert ratio == pytest.approx(size / int(split.offsets[-1]), abs=1e-4)
        assert ratio > 1.5
        if name == "train":
            used = set(np.unique(split.shards[0]).tolist())
            text = loaded.decode(split.read(0, 0, int(split.lengths[0])))
            assert text == documents[0].text
    assert result["unused_pieces"] == 512 - len(used)
    spare = [i for i in range(512) if i not in used]
    assert result["unused"] == loaded.pieces(spare[: len(result["unused"])])
    for example in result["examples"]:
        assert "".join(example["pieces"]) == example["text"]
    assert result["examples"]


def test_finished_ones_are_kept(trained):
    workdir, result = trained
    files = [p for p in workdir.glob("tok*/*") if p.is_file()]
    before = [p.stat().st_mtime_ns for p in files]
    assert train_tokenizer.run(data_config.make(), workdir) == result
    assert before == [p.stat().st_mtime_ns for p in files] and len(files) > 8


def test_lost_tokens_are_made_again(run):
    before = (run / "tokens" / "manifest.json").read_text()
    shutil.rmtree(run / "tokens")
    train_tokenizer.run(data_config.make(), run)
    assert (run / "tokens" / "manifest.json").read_text() == before


def test_truncated_shard_and_swapped_tokenizer_are_refused(run, tmp_path):
    shard = run / "tokens" / "train-00000.bin"
    content = shard.read_bytes()
    shard.write_bytes(content[:-10])
    with pytest.raises(InputError, match="truncated"):
        train_tokenizer.run(data_config.make(), run)
    shard.write_bytes(content)
    texts = [d.text for d in storage.read(run / "corpus", "train")]
    sentencepiece_tokenizer.train(texts, run / "tokenizer", vocab_size=400)
    with pytest.raises(InputError, match="fingerprint"):
        train_tokenizer.run(data_config.make(), run)


def test_other_settings_do_not_overwrite(run):
    c = data_config.make()
    c.tokenizer.vocab_size = 600
    with pytest.raises(InputError, match="vocab_size 512, now 600"):
        train_tokenizer.run(c, run)
    assert sentencepiece_tokenizer.load(run / "tokenizer").vocab_size == 512


def test_corpus_of_another_run(trained, tmp_path):
    c = data_config.make()
    c.data.corpus_dir = str(trained[0])
    result = train_tokenizer.run(c, tmp_path / "new")
    assert result["fingerprint"] == trained[1]["fingerprint"]
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {"tokenizer", "tokens", "train_tokenizer.json"}


def test_missing_corpus(tmp_path):
    with pytest.raises(InputError, match="no corpus in"):
        train_tokenizer.run(data_config.make(), tmp_path)


def test_vocabulary_too_large_leaves_nothing(trained, tmp_path):
    c = data_config.make()
    c.data.corpus_dir = str(trained[0])
    c.tokenizer.vocab_size = 200_000
    with pytest.raises(InputError, match="at most"):
        train_tokenizer.run(c, tmp_path / "new")
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())


def test_workdir_under_a_file(trained, tmp_path):
    (tmp_path / "file").write_text("")
    c = data_config.make()
    c.data.corpus_dir = str(trained[0])
    with pytest.raises(InputError, match="parents are folders"):
        train_tokenizer.run(c, tmp_path / "file" / "run")


def test_the_report_counts_what_is_lost(tmp_path):
    """Unknown tokens, languages and costly words, each counted again by hand."""
    pytest.importorskip("tokenizers")
    c = data_config.make()
    c.tokenizer.update(kind="word", vocab_size=400)
    prepare_data.run(c, tmp_path)
    result = train_tokenizer.run(c, tmp_path)
    loaded = sentencepiece_tokenizer.load(tmp_path / "tokenizer")
    for name, share in result["unknown"].items():
        texts = [d.text for d in storage.read(tmp_path / "corpus", name)]
        ids = [i for some in loaded.encode_batch(texts) for i in some]
        count = len(ids) + 2 * len(texts)
        assert share == pytest.approx(ids.count(loaded.unk_id) / count, abs=1e-6)
        assert share > 0
    held_out = " ".join(d.text for d in storage.read(tmp_path / "corpus", "validation"))
    worst = result["worst_words"]
    assert worst and worst[0]["unknown"] and worst[0]["pieces"] == 1
    for word in worst:
        assert loaded.unk_id in loaded.encode(word["word"])
        assert word["uses"] == len(
            re.findall(rf"(?<![^\W\d_]){word['word']}(?![^\W\d_])", held_out)
        )
    assert result["languages"] == {}


def test_the_report_by_language(tmp_path):
    documents = [
        Document(f"{n}.txt", text, "x", f"g{n}", "prose", len(text), {"language": name})
        for n, (text, name) in enumerate(
            [("ab " * 50, "aa"), ("cdefghij " * 50, "bb"), ("ab " * 20, "aa")]
        )
    ]
    splits = dict(zip(("train", "validation", "test"), ([d] for d in documents),
                      strict=True))  # fmt: skip
    text = "ab " * 500 + "cdefghij " * 3 + string.printable * 2
    made = sentencepiece_tokenizer.train(
        [text], tmp_path / "t", vocab_size=400, kind="char"
    )
    tokens.write(tmp_path / "k", splits, made, corpus_hash="")
    found = tokenizer_report.about(tmp_path / "k", splits, made)
    counted = {d.meta["language"]: [0, 0] for d in documents}
    for d in documents:
        counted[d.meta["language"]][0] += len(d.text)
        counted[d.meta["language"]][1] += len(made.encode(d.text)) + 2
    for name, (size, count) in counted.items():
        assert found["languages"][name] == pytest.approx(size / count, abs=1e-4)
        documents_of = sum(d.meta["language"] == name for d in documents)
        assert found["kinds"]["x"][name] == [documents_of, size, count]
    worst = found["worst_words"][0]
    assert (worst["word"], worst["uses"]) == ("cdefghij", 50)
    assert worst["pieces"] == len(made.encode("cdefghij")) > 1
