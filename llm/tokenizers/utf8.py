"""The border between Python's strings and UTF-8, which cannot hold all of them."""

from llm.errors import InputError


def check_encodable(text: str) -> None:
    """Raises InputError for a text with a lone surrogate."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            got=f"a lone surrogate U+{ord(text[error.start]):04X} at {error.start}",
            want="text that UTF-8 can hold",
            do="run the normalise stage, which replaces it",
        ) from error
