"""Finds personal data and secrets by their form, and by check digits where they exist.

What a pattern says is only a form: names and addresses of people are not found, and a
number that has the form of a telephone number is taken for one. Where digits alone
would say too little, a check digit, an assigned prefix or a word before them (`tel.`)
must agree; versions, dates, ISBNs, hashes and timestamps are left alone. The table of
the tests says what is told apart, and how well.
"""

import bisect
import functools
import ipaddress
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

from llm.text import checksums
from llm.text import pii_patterns as forms


class Found(NamedTuple):
    """Characters `start` to `stop` of a text are of this kind."""

    start: int
    stop: int
    kind: str


_Spans = Iterator[tuple[int, int]]

# In the order in which they take what several of them match.
KINDS = (
    "secret", "iban", "credit_card", "it_cf",
    *dict.fromkeys(name for name, _, _ in forms.NUMBERS), "email", "ip", "phone",
)  # fmt: skip


def find(
    text: str, kinds: Collection[str] = KINDS, *, public_only: bool = True
) -> list[Found]:
    """What of these kinds a text holds, in order; no two overlap.

    Args:
      kinds: some of KINDS.
      public_only: only IP addresses that the internet routes.
    """
    found: list[Found] = []
    text = _plain(text)
    for kind, span in _candidates(text, frozenset(kinds), public_only):
        made = Found(*span, kind)
        place = bisect.bisect(found, made)
        before, after = found[max(place - 1, 0) : place], found[place : place + 1]
        if all(one.stop <= made.start for one in before) and all(
            made.stop <= one.start for one in after
        ):
            found.insert(place, made)
    return found


def redacted(
    text: str, found: Iterable[Found], name: Callable[[str], str] = str.upper
) -> str:
    """The text with what was found in it, in order, replaced by names of kinds."""
    parts, place = [], 0
    for start, stop, kind in found:
        parts += [text[place:start], f"[{name(kind)}]"]
        place = stop
    return "".join([*parts, text[place:]])


def _plain(text: str) -> str:
    """The text with digits, spaces and hyphens in their plain form; of its length."""
    if text.isascii():
        return text
    for mark, plain in forms.PLAIN_MARKS.items():
        text = text.replace(mark, plain)
    return text.translate(forms.PLAIN) if forms.NOT_PLAIN.search(text) else text


def _candidates(
    text: str, kinds: Collection[str], public_only: bool
) -> Iterator[tuple[str, tuple[int, int]]]:
    """(kind, span) of all that match, what takes precedence first."""
    if "secret" in kinds:
        long = any(map(forms.NO_WORD.search, forms.LONG.findall(text)))
        for begins, whole in forms.SECRETS if long else forms.SHORT_SECRETS:
            if any(part in text for part in begins):
                # A part of the match, or all of it; what is given may stand for one.
                part = next(iter(whole.groupindex), 0)
                for match in whole.finditer(text):
                    if part != "given" or not forms.NO_SECRET.match(match[part]):
                        yield "secret", match.span(part)
        if any(part in text for part in forms.NAME_PARTS):
            yield from (("secret", span) for span in _given(text))
            yield from (("secret", span) for span in _stated(text))
        if any(part in text for part in forms.SET_PARTS):
            yield from (("secret", span) for span in _set(text))
    if "iban" in kinds:
        yield from (("iban", span) for span in _ibans(text))
    if "it_cf" in kinds:
        for match in forms.ITALIAN.finditer(text):  # from its digits on
            start = match.start() - 6
            code = text[max(start, 0) : match.end()].upper()
            if _begins(text, start, 6) and checksums.italian(code):
                yield "it_cf", (start, match.end())
    windows = [
        (max(match.start() - forms.REACH, 0), min(match.end() + 3, len(text)))
        for match in forms.STRETCH.finditer(text)
    ]
    if "credit_card" in kinds:
        yield from (("credit_card", span) for span in _cards(text, windows))
    for kind, pattern, valid in forms.NUMBERS:
        if kind in kinds:
            for start, stop in windows:
                part = next(iter(pattern.groupindex), 0)
                for match in pattern.finditer(text, start, stop):
                    if valid(re.sub(r"[\s.-]", "", match[part]).upper()):
                        yield kind, match.span(part)
    if "email" in kinds:
        if "@" in text:
            yield from (("email", span) for span in _emails(text))
        yield from (("email", span) for span in _hidden_emails(text))
    if "ip" in kinds:
        yield from (("ip", span) for span in _addresses(text, public_only))
    if "phone" in kinds:
        yield from (("phone", span) for span in _phones(text, windows))


def _begins(text: str, start: int, letters: int) -> bool:
    """Whether so many letters of English, and no more, begin a word at a place."""
    head = text[max(start, 0) : start + letters]
    word = start > 0 and text[start - 1].isalnum()
    return start >= 0 and not word and head.isascii() and head.isalpha()


def _given(text: str) -> _Spans:
    """Values in quotes that a program gives to passwords and keys."""
    for match in forms.GIVEN.finditer(text):
        before = text[max(match.start() - 40, 0) : match.start()]
        if match[0][0] == ",":
            named = forms.CALLED_WITH.search(before) and forms.FOR_SECRETS.search(
                before
            )
        else:
            named = forms.FOR_SECRETS.search(before)
        if named and not forms.NO_SECRET.match(match["secret"]):
            yield match.span("secret")


def _stated(text: str) -> _Spans:
    """Values behind the name of a password or a key, and a colon."""
    for match in forms.STATED.finditer(text):
        before = text[max(match.start() - 40, 0) : match.start()]
        if forms.FOR_SECRETS.search(before) and not forms.NO_SECRET.match(
            match["secret"]
        ):
            yield match.span("secret")


def _set(text: str) -> _Spans:
    """Values that an environment sets them to."""
    for match in forms.SET.finditer(text):
        if not forms.NO_SECRET.match(match["secret"]):
            yield match.span("secret")


def _emails(text: str) -> _Spans:
    at = text.find("@")
    while at >= 0:
        local = forms.LOCAL.search(text, max(at - 64, 0), at)
        domain = forms.DOMAIN.match(text, at + 1)
        if not domain:  # bob@example[.]com
            domain = forms.HIDDEN_DOMAIN.match(text, at + 1)
        if local and domain and _is_email(local[0], domain[1]):
            yield _local_start(local, domain[0]), domain.end()
        at = text.find("@", at + 1)


def _local_start(local: re.Match, domain: str) -> int:
    """Where a local part begins, behind marks and words that are not its own."""
    if not local[0].isascii() and domain.isascii():
        # In a script without spaces, what stands before it looks like a part of it.
        plain = forms.PLAIN_LOCAL.search(local[0])
        if plain and unspaced_before(local[0], plain.start()):
            return local.start() + plain.start()
    return local.start() + len(local[0]) - len(local[0].lstrip(".'’-"))


def unspaced_before(text: str, place: int) -> bool:
    """Whether a letter of a script without spaces stands before a place."""
    return place > 0 and forms.UNSPACED_LETTER.match(text[place - 1]) is not None


def _hidden_emails(text: str) -> _Spans:
    """Addresses whose @ and full stops are spelled out."""
    for at in forms.HIDDEN_AT.finditer(text):
        end = at.start() - (text[at.start() - 1 : at.start()] == " ")
        local = forms.LOCAL.search(text, max(end - 64, 0), end)
        domain = forms.HIDDEN_DOMAIN.match(text, at.end())
        if local and domain and _is_email(local[0], domain[1]):
            yield _local_start(local, domain[0]), domain.end()
    if " dot " in text or " DOT " in text:
        for match in forms.SPELLED.finditer(text):
            yield match.span()


def _is_email(local: str, ending: str) -> bool:
    alike = ending.islower() or ending.isupper()
    general = ending.lower() in forms.ENDINGS and (alike or ending.istitle())
    country = len(ending) == 2 and ending.isascii()
    country = country and ending.lower() not in forms.NO_COUNTRIES
    known = general or (country and alike) or ending.lower().startswith("xn--")
    plain = any(map(str.isalnum, local)) and not local.endswith(".")
    return known and plain and local != "git"  # git@github.com is a command


def _addresses(text: str, public_only: bool) -> _Spans:
    for match in forms.MAPPED.finditer(text) if "::" in text else ():
        if _is_address(match[1], public_only):
            yield match.span()
    for match in forms.IPV4.finditer(text):
        if not _is_version(text, match) and _is_address(match[0], public_only):
            yield match.span()
    for match in forms.IPV6.finditer(text):
        around = text[match.start() - 1 : match.start()] + text[match.end() :][:1]
        if not any(c.isalnum() or c in ":." for c in around[:1]) and _is_address(
            match[0], public_only
        ):
            yield match.span()


def _is_version(text: str, match: re.Match) -> bool:
    """Whether four numbers are those of a version or a section."""
    before = text[max(match.start() - 20, 0) : match.start()]
    if forms.IS_ADDRESS.search(before):
        return False
    if forms.IS_VERSION.search(before):
        return True
    if (
        match[0].startswith("10.")
        or match[0] in forms.KNOWN
        or forms.IS_PORT.match(text, match.end())
    ):
        return False
    return all(int(part) < forms.SMALL for part in match[0].split("."))


def _is_address(text: str, public_only: bool) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        return False
    routed = address.is_global and (address.version == 4 or text[0] in "23")
    return routed or not public_only


def _phones(text: str, windows: list[tuple[int, int]]) -> _Spans:
    for start, stop in windows:
        for pattern in forms.PHONES:
            for match in pattern.finditer(text, start, stop):
                if 9 <= sum(map(str.isdigit, match[0])) <= 15 and not _is_row(match[0]):
                    yield match.span()
        for match in forms.ANY_PHONE.finditer(text, start, stop):
            if forms.CALLED.search(text[max(match.start() - 20, 0) : match.start()]):
                yield match.span()


def _is_row(number: str) -> bool:
    """Whether groups of digits are rather numbers of a table that count upwards."""
    groups = forms.GROUPS.findall(number)
    if number[0] == "+" or len(groups) < 3:
        return False
    if all(group[0] == "0" for group in groups):
        return True
    sizes = {len(group) for group in groups}
    values = [int(group) for group in groups]
    steps = {b - a for a, b in itertools.pairwise(values)}
    alike = len(groups) > 3 and len(sizes) == 1
    return alike and (len(steps) == 1 or (len(groups) > 5 and sizes == {2}))


def _cards(text: str, windows: list[tuple[int, int]]) -> _Spans:
    for start, stop in windows:
        for match in forms.CARD.finditer(text, start, stop):
            digits = re.sub(r"\D", "", match[0])
            if forms.ISSUED.fullmatch(digits) and checksums.luhn(digits):
                yield match.span()


def _ibans(text: str) -> _Spans:
    for match in forms.IBAN.finditer(text):  # from its digits on
        start = match.start() - 2
        if not _begins(text, start, 2):
            continue
        length = checksums.iban_length(text[start : start + 2].upper())
        if not length:
            continue
        account = _iban_form(length).match(text, start)
        if account and checksums.iban(re.sub("[ -]", "", account[0]).upper()):
            yield account.span()


@functools.cache
def _iban_form(length: int) -> re.Pattern:
    """So many letters and digits, with a space or hyphen between four and four."""
    whole, rest = divmod(length - 4, 4)
    last = rf"(?:[ -]?[A-Za-z0-9]{{{rest}}})" if rest else ""
    four = rf"(?:[ -]?[A-Za-z0-9]{{4}}){{{whole}}}"
    return re.compile(rf"[A-Za-z]{{2}}\d\d{four}{last}(?![A-Za-z0-9])")
