"""What a request may ask, with its limits: the fields of OpenAI's API, and vLLM's more.

A field that we do not carry out is refused, unless leaving it out changes no answer:
clients send back what they were given, with nulls and empty lists, and spell out
defaults. Such fields are named on the console, once each. Numbers that are not finite
are refused everywhere.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from llm.inference.sampling import BIASED, Sampling

MOST_CHOICES, MOST_TEXTS = 128, 2048  # of one request
_MOST_TOKENS = 1 << 20
_SEED = 1 << 63
Text = Annotated[str, Field(max_length=4 << 20)]
# Strict: neither true nor "1" is a number, neither 1 nor "yes" is true.
Int = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Id = Annotated[Int, Field(ge=0, lt=1 << 31)]
Ids = Annotated[list[Id], Field(min_length=1)]
Filled = Annotated[Text, Field(min_length=1)]
Stop = Annotated[str, Field(min_length=1, max_length=200)]
Bias = Annotated[Number, Field(ge=-100, le=100)]


def _several(kind: Any, most: int) -> Any:
    """A list of one or more, and at most so many."""
    return Annotated[list[kind], Field(min_length=1, max_length=most)]


_Prompt = Text | Ids | _several(Text, MOST_CHOICES) | _several(Ids, MOST_CHOICES)
_Input = Filled | Ids | _several(Filled, MOST_TEXTS) | _several(Ids, MOST_TEXTS)


# Values of fields that we lack which ask for what is done anyway.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_bos_token": (True,),
    "add_generation_prompt": (True,),
    "audio": (),
    "best_of": (1,),
    "cache_prompt": (True, False),
    "detokenize": (True,),
    "do_sample": (True,),
    "dry_multiplier": (0,),
    "enable_thinking": (),
    "function_call": ("none", "auto"),
    "include_reasoning": (True, False),
    "length_penalty": (1.0,),
    "min_tokens": (0,),
    "mirostat": (0,),
    "modalities": (["text"],),
    "n_probs": (0,),
    "num_beams": (1,),
    "parallel_tool_calls": (True, False),
    "priority": (0,),
    "reasoning_format": ("auto", "none"),
    "repeat_penalty": (1.0,),
    "return_progress": (True, False),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "tfs_z": (1.0,),
    "think": (),
    "timings_per_token": (True, False),
    "tool_choice": ("none", "auto"),
    "top_a": (0,),
    "typical_p": (1.0,),
    "verbosity": ("medium",),
    "xtc_probability": (0,),
}
# Of messages and their parts: marks of other servers that change no answer.
_MARKS = ("cache_control", "id")
_TOOLS = ("tools", "functions", "tool_calls", "function_call", "tool_choice")
_named: set[str] = set()


def _asks_nothing(name: str, value: Any) -> bool:
    """Whether a field that we lack may be left out."""
    if value is None:
        return True
    if name in _NEUTRAL:  # where False may ask for something
        return value in _NEUTRAL[name]
    # A zero asks for none of something; whatever that is, it is not done.
    return value is False or value in ("", [], {})


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _without_neutral(cls, given: Any) -> Any:
        """A body without nulls, which stand for a default, and neutral extras."""
        if not isinstance(given, dict):
            return given
        known = {
            name
            for field, about in cls.model_fields.items()
            for name in (field, about.alias)
            if name
        }
        if given.get("tool_choice") == "none":  # whatever the tools are, none is called
            given = {n: v for n, v in given.items() if n not in ("tools", "functions")}
        required = {n for n, about in cls.model_fields.items() if about.is_required()}
        kept = {
            name: value
            for name, value in given.items()
            if value is not None or name not in known or name in required
        }
        for name in [n for n in kept if n not in known]:
            if _asks_nothing(name, kept[name]):
                del kept[name]
                if name not in _named and len(_named) < 100:
                    _named.add(name)
                    print(f"ignored: the field {name[:40]!r}, which asks for nothing",
                          file=sys.stderr)  # fmt: skip
            elif name in _TOOLS:
                raise ValueError(
                    f"{name}: this server does not call tools; leave them out"
                )
        return kept


class StreamOptions(_Strict):
    """What a stream tells besides the text."""

    include_usage: Flag = False
    include_obfuscation: Flag = False


class JsonSchema(_Strict):
    """A schema, as OpenAI wraps it."""

    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] | Flag = Field(default_factory=dict, alias="schema")
    strict: Flag | None = None


class ResponseFormat(_Strict):
    """The form of an answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(_Strict):
    """The form of an answer, as vLLM has it; one of these."""

    json_: dict[str, Any] | Flag | None = Field(None, alias="json")
    regex: Annotated[str, Field(max_length=10_000)] | None = None
    choice: (
        Annotated[
            list[Annotated[str, Field(min_length=1)]],
            Field(min_length=1, max_length=1000),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _one(self) -> "StructuredOutputs":
        given = [
            n for n in ("json_", "regex", "choice") if getattr(self, n) is not None
        ]
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(given)}: want one of them".replace("_", "")
            )
        return self


class _Sampled(_Strict):
    """What completions and chat have in common."""

    model: Annotated[str, Field(max_length=1000)] = ""
    temperature: Annotated[Number, Field(ge=0, le=100)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[Int, Field(ge=-1, lt=1 << 31)] = 0
    min_p: Annotated[Number, Field(ge=0, le=1)] = 0.0
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[Number, Field(gt=0, le=100)] = 1.0
    logit_bias: (
        Annotated[
            dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Bias],
            Field(max_length=BIASED),
        ]
        | None
    ) = None
    # -1 is what llama.cpp's clients send for no limit but the context.
    max_tokens: Annotated[Int, Field(ge=-1, le=_MOST_TOKENS)] | None = None
    n: Annotated[Int, Field(ge=1, le=MOST_CHOICES)] | None = None
    seed: Annotated[Int, Field(ge=-_SEED, lt=_SEED)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = Field(
        None, description="a text of 1 to 200 characters, or up to 16 of them"
    )
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: Flag = False
    structured_outputs: StructuredOutputs | None = None
    response_format: ResponseFormat | None = None
    # Heard, and of no effect on an answer.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: Flag | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _without_empty(cls, stop: Any) -> Any:
        """An empty text stops nothing."""
        if isinstance(stop, list):
            return [text for text in stop if text != ""]
        return stop or None if isinstance(stop, str) else stop

    @model_validator(mode="after")
    def _one_form(self) -> "_Sampled":
        form = self.response_format
        if self.structured_outputs and form and form.type != "text":
            raise ValueError("response_format and structured_outputs: want one of them")
        return self

    def sampling(self) -> Sampling:
        """How to choose tokens."""

        def given(value, default):
            return default if value is None else value

        pairs = (self.logit_bias or {}).items()
        return Sampling(
            temperature=given(self.temperature, 1.0),
            top_k=max(self.top_k, 0),
            top_p=given(self.top_p, 1.0),
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=given(self.presence_penalty, 0.0),
            frequency_penalty=given(self.frequency_penalty, 0.0),
            bias=tuple((int(token), amount) for token, amount in pairs),
        )

    def stops(self) -> list[str]:
        """The texts that end an answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def grammar(self) -> tuple[str, Any] | None:
        """(kind, what) of the form that is wanted, as `Grammars.matcher` takes it."""
        form, more = self.response_format, self.structured_outputs
        if form and form.type == "json_object":
            return "json_object", None
        if form and form.type == "json_schema":
            held = form.json_schema
            return "json_schema", {} if held is None else held.schema_
        for kind, what in (
            ("json_schema", more and more.json_),
            ("regex", more and more.regex),
            ("choice", more and more.choice),
        ):
            if what is not None:
                return kind, what
        return None


class CompletionRequest(_Sampled):
    """POST /v1/completions."""

    @field_validator("logprobs", mode="before")
    @classmethod
    def _none_wanted(cls, wanted: Any) -> Any:
        """A chat says false for none."""
        return None if wanted is False else wanted

    prompt: _Prompt = Field(
        description="a text, a list of token ids, or a list of either, of at most "
        f"{MOST_CHOICES}"
    )
    # Whether a text is begun by what the tokenizer begins texts with; ids never are.
    add_special_tokens: Flag = True
    logprobs: Annotated[Int, Field(ge=0, le=20)] | None = None
    echo: Flag | None = None
    best_of: Annotated[Int, Field(ge=1, le=1)] | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None


def _unmarked(given: Any) -> Any:
    """A message or a part of one, without marks that change no answer."""
    if not isinstance(given, dict):
        return given
    return {name: value for name, value in given.items() if name not in _MARKS}


class TextPart(_Strict):
    """A part of a message's content."""

    type: Literal["text"]
    text: Text

    @model_validator(mode="before")
    @classmethod
    def _no_pictures(cls, part: Any) -> Any:
        kind = part.get("type") if isinstance(part, dict) else "text"
        if isinstance(kind, str) and kind != "text":
            raise ValueError(f"type {kind[:40]!r}: this server reads text alone")
        return _unmarked(part)


class Message(_Strict):
    """One of a conversation."""

    @model_validator(mode="before")
    @classmethod
    def _without_marks(cls, message: Any) -> Any:
        return _unmarked(message)

    role: Literal["system", "developer", "user", "assistant"]

    @field_validator("role", mode="before")
    @classmethod
    def _no_tools(cls, role: Any) -> Any:
        if role in ("tool", "function"):
            raise ValueError(f"role {role!r}: this server does not call tools")
        return role

    content: Text | Annotated[list[TextPart], Field(max_length=1000)] = Field(
        description='a text, or a list of {"type": "text", "text": ...}'
    )
    name: Annotated[str, Field(max_length=200)] | None = None

    def plain(self) -> dict[str, str]:
        """As chat templates take it."""
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(p.text for p in parts)
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": text}


Messages = Annotated[list[Message], Field(min_length=1, max_length=1000)]
# Of the chat template, such as {"enable_thinking": false}.
Variables = Annotated[
    dict[Annotated[str, Field(max_length=100)], Text | Flag | Int | Number],
    Field(max_length=20),
]


class ChatRequest(_Sampled):
    """POST /v1/chat/completions."""

    messages: Messages
    max_completion_tokens: Annotated[Int, Field(ge=-1, le=_MOST_TOKENS)] | None = None
    logprobs: Flag | None = None
    top_logprobs: Annotated[Int, Field(ge=0, le=20)] | None = None
    chat_template_kwargs: Variables | None = None


class EmbeddingRequest(_Strict):
    """POST /v1/embeddings."""

    input: _Input = Field(
        description="a text, a list of token ids, or a list of either, of at most "
        f"{MOST_TEXTS}, none empty"
    )
    model: Annotated[str, Field(max_length=1000)] = ""
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = None


class TokenizeRequest(_Strict):
    """POST /tokenize: of a prompt, or of messages."""

    prompt: Text | None = None
    messages: Messages | None = None
    chat_template_kwargs: Variables | None = None
    model: Annotated[str, Field(max_length=1000)] = ""


class DetokenizeRequest(_Strict):
    """POST /detokenize."""

    tokens: Annotated[list[Id], Field(max_length=1 << 20)]
    model: Annotated[str, Field(max_length=1000)] = ""


class Preference(_Strict):
    """POST /feedback/preference: which of two answers is better."""

    prompt: Text | None = None
    messages: Messages | None = None
    chosen: Text
    rejected: Text


class Rating(_Strict):
    """POST /feedback/rating: a thumb up or down; null takes it back."""

    prompt: Text | None = None
    messages: Messages | None = None
    answer: Text
    good: Flag | None


# {field: what it wants} of fields that take one of several things.
_WANTED = {
    name: field.description
    for model in (CompletionRequest, Message, EmbeddingRequest)
    for name, field in model.model_fields.items()
    if field.description
}


def complaint(errors: Sequence[Mapping[str, Any]]) -> str:
    """A line about the first of pydantic's errors of a body.

    Where a field takes one of several things, pydantic says what is wrong with it as
    each of them; if it is clearly one of them, that is told, else what it may be.
    """
    first = errors[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", first["msg"])
        return f"the body is no JSON: {reason} at character {first['loc'][-1]}"[:500]
    place = [str(part) for part in first["loc"][1:]]
    several = [n for n, part in enumerate(place[:-1]) if part in _WANTED]
    if not several:
        return f"{'.'.join(place)[:200] or 'the body'}: {first['msg']}"[:500]
    field = place[: several[-1] + 1]
    size = len(field)
    # By what it might be: the part of the place that follows the field.
    same = [e for e in errors if [str(x) for x in e["loc"][1:]][:size] == field]
    fitting: dict[str, list[Mapping[str, Any]]] = {}
    for error in same:
        rest = error["loc"][1 + size :]
        if len(rest) > 1 or not error["type"].endswith("_type"):
            fitting.setdefault(str(rest[0]), []).append(error)
    if len(fitting) == 1:
        ((_, (error, *_)),) = fitting.items()
        inner = [*field, *(str(part) for part in error["loc"][2 + size :])]
        return f"{'.'.join(inner)[:200]}: {error['msg']}"[:500]
    shown = ".".join(field)
    return f"{shown[:200]}: got {first['input']!r:.80}; want {_WANTED[field[-1]]}"
