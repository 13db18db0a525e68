"""Masked language modelling: what is chosen, what becomes of it, and whole words."""

import re
import types

import numpy as np
import pytest
from rows import EOS, PIECES, TOKENIZER, V, bits, build, random_record, record

from llm.errors import InputError
from llm.objectives import masked_lm


@pytest.fixture(scope="module")
def masked_rows():
    of = build("masked_lm")
    given = [random_record(64, seed) for seed in range(1500)]
    made = [of.features(row, bits(4, seed)) for seed, row in enumerate(given)]
    return given, made


def test_masked_share_is_exact(masked_rows):
    for given, made in zip(*masked_rows, strict=True):
        tokens, segments = given["tokens"][:-1], given["segments"][:-1]
        free = (segments > 0) & (tokens > EOS)
        chosen = made["weights"] == 1
        assert not chosen[~free].any()
        count = 0.15 * free.sum()
        assert abs(chosen.sum() - count) <= 0.5 or chosen.sum() == 1
        assert chosen.any() == free.any()
        np.testing.assert_array_equal(made["targets"], tokens)
        np.testing.assert_array_equal(made["tokens"][~chosen], tokens[~chosen])
        np.testing.assert_array_equal(made["segments"], segments)


def test_eighty_ten_ten(masked_rows):
    fates = {"mask": 0, "same": 0, "other": 0}
    drawn = np.zeros(V + 1, int)
    for made in masked_rows[1]:
        for shown, target in zip(
            made["tokens"][made["weights"] == 1],
            made["targets"][made["weights"] == 1],
            strict=True,
        ):
            fate = "mask" if shown == V else "same" if shown == target else "other"
            fates[fate] += 1
            drawn[shown] += fate == "other"
    total = sum(fates.values())
    assert total > 8000
    # A random token may be the same one.
    same = 0.1 + 0.1 / (V - 4)
    wanted = {"mask": 0.8, "same": same, "other": 0.2 - same}
    for fate, share in wanted.items():
        assert fates[fate] / total == pytest.approx(share, abs=0.015), fate
    assert not drawn[:4].any() and drawn[4:V].all()


def test_every_token_is_as_likely_to_be_chosen():
    of = build("masked_lm")
    given = record(20, [20], seed=9)
    given["tokens"][:] = 4 + np.arange(21) % (V - 4)
    counts = sum(of.features(given, bits(8, i))["weights"] for i in range(4000))
    assert counts.sum() == 3 * 4000
    # Five standard deviations of a count.
    assert np.abs(counts - 600).max() < 5 * np.sqrt(600 * 0.85)


def words(tokens, segments):
    """Sets of positions, found in the text of each document by a regular expression."""
    found = []
    for segment in range(1, segments.max(initial=0) + 1):
        run = []
        for t in [*np.flatnonzero(segments == segment), None]:
            if t is not None and tokens[t] > EOS:
                run.append(t)
                continue
            content = b"".join(PIECES[tokens[t]] for t in run)
            inside = [m.span() for m in re.finditer(rb"[\w\x80-\xff]+", content)]
            at, groups = 0, []
            for t in run:
                # A token goes on where the word around its first byte began before it.
                if groups and any(a < at < z for a, z in inside):
                    groups[-1].append(t)
                else:
                    groups.append([t])
                at += len(PIECES[tokens[t]])
            found += groups
            run = []
    return found


def test_whole_words_are_whole():
    of = build("masked_lm", whole_words=True)
    chosen_tokens = free_tokens = long = 0
    for seed in range(400):
        given = random_record(64, seed)
        made = of.features(given, bits(5, seed))
        found = words(given["tokens"][:-1], given["segments"][:-1])
        for word in found:
            assert len({int(made["weights"][t]) for t in word}) == 1, word
            long += len(word) > 1 and made["weights"][word[0]]
        assert made["weights"].any() == bool(found)
        assert not made["weights"][made["targets"] <= EOS].any()
        if sum(map(len, found)) >= 30:
            chosen_tokens += made["weights"].sum()
            free_tokens += sum(map(len, found))
    assert long > 200
    assert chosen_tokens / free_tokens == pytest.approx(0.15, abs=0.01)


def test_words_need_bytes():
    unknown = types.SimpleNamespace(**{**vars(TOKENIZER), "piece_bytes": None})
    with pytest.raises(InputError, match="whole_words"):
        masked_lm.make(whole_words=True, vocab_size=V, tokenizer=unknown)
    # Single tokens can be masked without.
    made = masked_lm.make(vocab_size=V, tokenizer=unknown).features(
        record(64, [50]), bits(0, 0)
    )
    assert made["weights"].any() and not made["weights"][made["targets"] <= EOS].any()
