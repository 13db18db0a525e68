"""Every file of llm/sources/ keeps the contract of a source."""

import inspect

import pytest

from llm import registry
from llm.document import Document


@pytest.mark.parametrize("name", registry.choices("sources"))
def test_contract(name):
    module = registry.module("sources", name)
    for package in getattr(module, "NEEDS", ()):
        pytest.importorskip(package)
    assert module.__doc__ and len(module.__doc__) > 200
    for parameter in inspect.signature(module.make).parameters.values():
        assert parameter.kind is parameter.KEYWORD_ONLY
    assert registry.defaults(module.make).keys() == set(
        inspect.signature(module.make).parameters
    )
    source = registry.build("sources", registry.spec("sources", name, **module.TINY))
    first, second = (list(source(lambda reason, id: None)) for _ in range(2))
    assert first == second and first
    assert len({document.id for document in first}) == len(first)
    for document in first:
        assert isinstance(document, Document) and document.text.strip()
        assert document.source == name and document.group and document.kind
        assert document.raw_bytes == len(document.text.encode())
