"""JSON of files: what cannot be read is one line that says where it stands.

for number, line in enumerate(lines(path), start=1):
    record = parsed(f"{path}, line {number}", line, want="a record a line")
"""

import json
from typing import Any

from etils import epath

from llm.errors import InputError


def parsed(where: Any, text: str | bytes, want: str, do: str = "") -> Any:
    """The value of a text.

    Raises:
      InputError: it is not JSON; of bytes, also where they are not UTF-8.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            got=f"{where}, which is not JSON ({error})", want=want, do=do
        ) from error


def lines(path: epath.PathLike) -> list[str]:
    """The lines of a file that has a value a line; none where there is no file.

    Only a line feed ends one: texts in JSON may hold U+2028 and others at which
    `splitlines` cuts.
    """
    path = epath.Path(path)
    text = path.read_text("utf-8") if path.exists() else ""
    return text.removesuffix("\n").split("\n") if text else []
