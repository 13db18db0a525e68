"""1 for an answer that is JSON of a schema, else 0.

The schema is that of the config, or the reference of each record (`schema=""`). Whole
answers count: text around the JSON gets nothing. Schemas are checked by the package
`jsonschema` (extra `eval`); without a schema anywhere, any JSON object will do.
"""

import json
from typing import Any

from llm.errors import InputError
from llm.rewards import Answer, Failed, Reward, each

TINY: dict[str, Any] = {"schema": "{}"}


def make(*, schema: str = "") -> Reward:
    """Makes the reward.

    Args:
      schema: a JSON schema as text; '' takes the reference of each record; {} takes any
        object.

    Raises:
      InputError: no JSON, no schema, or no package that checks one.
    """
    common = _validator(schema) if schema else None

    @each
    def reward(answer: Answer) -> float:
        try:
            wanted = common or _validator(answer.reference)
        except InputError as error:
            raise Failed(error.got) from error
        try:
            content = json.loads(answer.text)
        except (ValueError, RecursionError):
            return 0.0
        return float(isinstance(content, dict) and wanted(content))

    return reward


def _validator(text: str):
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise InputError(
            got=f"a schema that is no JSON ({error})", want="a JSON schema"
        ) from error
    if schema in ({}, True):
        return lambda content: True
    try:
        import jsonschema
    except ModuleNotFoundError as error:
        raise InputError(
            got="no package jsonschema",
            want="it, to check a schema",
            do="pip install -c constraints.txt -e .[eval]",
        ) from error
    cls = jsonschema.validators.validator_for(schema)
    try:
        cls.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise InputError(
            got=f"no JSON schema: {error.message[:80]}", want="one"
        ) from error
    return cls(schema).is_valid
