"""Every file of llm/stages/ keeps the contract of a stage."""

import inspect

import data_config
import pytest

from llm import registry
from llm.document import Group, Map, Tag

NEEDS = {"language": "py3langid"}


def check_reads(name, module, stage, documents):
    """Knobs that `reads` does not name change no score."""
    if stage.reads is None:
        return
    knobs = registry.spec("stages", name, **module.TINY)
    assert set(stage.reads) <= set(knobs)
    scores = [stage.score(document) for document in documents]
    for knob, value in knobs.items():
        if knob in ("name", *stage.reads) or isinstance(value, str):
            continue
        other = not value if isinstance(value, bool) else value
        if isinstance(value, int | float) and not isinstance(value, bool):
            other = value * 0.5 if isinstance(value, float) else value + 1
        elif isinstance(value, tuple):
            other = value[1:] if len(value) > 1 else value
        changed = registry.build("stages", knobs | {knob: other})
        if isinstance(changed, Tag):
            assert [changed.score(document) for document in documents] == scores, knob


@pytest.mark.parametrize("name", registry.choices("stages"))
def test_contract(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    module = registry.module("stages", name)
    assert module.__doc__ and len(module.__doc__) > 100
    for parameter in inspect.signature(module.make).parameters.values():
        assert parameter.kind is parameter.KEYWORD_ONLY
    stage = registry.build("stages", registry.spec("stages", name, **module.TINY))
    assert isinstance(stage, Map | Tag | Group)
    documents = data_config.library()[0][::20]
    first, second = (data_config.through([(name, stage)], documents) for _ in range(2))
    assert first == second and first.documents
    (entry,) = first.counts
    dropped = sum(reason["documents"] for reason in entry["dropped"].values())
    assert dropped >= entry["documents_in"] - entry["documents_out"]
    if not isinstance(stage, Map):  # which may also make many of one
        assert entry["documents_in"] >= entry["documents_out"]
    if isinstance(stage, Tag):
        check_reads(name, module, stage, documents)
        scores = [stage.score(document) for document in documents]
        assert all(isinstance(v, float) for score in scores for v in score.values())
        assert all(isinstance(stage.decide(score), str) for score in scores)
