"""Finds personal data and secrets by their form, and by check digits where they exist.

What a pattern says is only a form: names and addresses of people are not found, and a
number that has the form of a telephone number is taken for one. Where digits alone
would say too little, a check digit, an assigned prefix or a word before them (`tel.`)
must agree; versions, dates, ISBNs, hashes and timestamps are left alone. The table of
the tests says what is told apart, and how well.
"""

import bisect
import ipaddress
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from llm import checksums
from llm import pii_forms as forms


class Found(NamedTuple):
    """Characters `start` to `stop` of a text are of this kind."""

    start: int
    stop: int
    kind: str


_Spans = Iterator[tuple[int, int]]

# In the order in which they take what several of them match.
KINDS = (
    "secret", "iban", "credit_card", "it_cf", *(name for name, _, _ in forms.NUMBERS),
    "email", "ip", "phone",
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
    for kind, span in _candidates(text, frozenset(kinds), public_only):
        made = Found(*span, kind)
        place = bisect.bisect(found, made)
        before, after = found[max(place - 1, 0) : place], found[place : place + 1]
        if all(one.stop <= made.start for one in before) and all(
            made.stop <= one.start for one in after
        ):
            found.insert(place, made)
    return found


def _candidates(
    text: str, kinds: Collection[str], public_only: bool
) -> Iterator[tuple[str, tuple[int, int]]]:
    """(kind, span) of all that match, what takes precedence first."""
    if "secret" in kinds:
        for begins, whole in forms.SECRETS:
            if any(part in text for part in begins):
                part = "secret" if whole.groupindex else 0  # of the match, or all of it
                for match in whole.finditer(text):
                    yield "secret", match.span(part)
        if any(part in text for part in forms.NAME_PARTS):
            yield from (("secret", span) for span in _given(text))
        if any(part in text for part in forms.SET_PARTS):
            yield from (("secret", span) for span in _set(text))
    if "iban" in kinds:
        yield from (("iban", span) for span in _ibans(text))
    if "it_cf" in kinds:
        for match in forms.ITALIAN.finditer(text):
            if checksums.italian(match[0]):
                yield "it_cf", match.span()
    windows = [
        (max(match.start() - forms.REACH, 0), min(match.end() + 3, len(text)))
        for match in forms.STRETCH.finditer(text)
    ]
    if "credit_card" in kinds:
        yield from (("credit_card", span) for span in _cards(text, windows))
    for kind, pattern, valid in forms.NUMBERS:
        if kind in kinds:
            for start, stop in windows:
                for match in pattern.finditer(text, start, stop):
                    if valid(re.sub(r"[\s.-]", "", match[0])):
                        yield kind, match.span()
    if "email" in kinds and "@" in text:
        yield from (("email", span) for span in _emails(text))
    if "ip" in kinds:
        yield from (("ip", span) for span in _addresses(text, public_only))
    if "phone" in kinds:
        yield from (("phone", span) for span in _phones(text, windows))


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
        if local and domain and _is_email(local[0], domain[1]):
            skipped = len(local[0]) - len(local[0].lstrip(".'’-"))
            yield local.start() + skipped, domain.end()
        at = text.find("@", at + 1)


def _is_email(local: str, ending: str) -> bool:
    alike = ending.islower() or ending.isupper()
    general = ending.lower() in forms.ENDINGS and (alike or ending.istitle())
    country = len(ending) == 2 and ending.lower() not in forms.NO_COUNTRIES
    known = general or (country and alike)
    plain = any(map(str.isalnum, local)) and not local.endswith(".")
    return known and plain and local != "git"  # git@github.com is a command


def _addresses(text: str, public_only: bool) -> _Spans:
    for match in forms.IPV4.finditer(text):
        before = text[max(match.start() - 10, 0) : match.start()]
        if not forms.IS_VERSION.search(before) and _is_address(match[0], public_only):
            yield match.span()
    for match in forms.IPV6.finditer(text):
        around = text[match.start() - 1 : match.start()] + text[match.end() :][:1]
        if not any(c.isalnum() or c in ":." for c in around[:1]) and _is_address(
            match[0], public_only
        ):
            yield match.span()


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
                if 9 <= sum(map(str.isdigit, match[0])) <= 15:
                    yield match.span()
        for match in forms.ANY_PHONE.finditer(text, start, stop):
            if forms.CALLED.search(text[max(match.start() - 20, 0) : match.start()]):
                yield match.span()


def _cards(text: str, windows: list[tuple[int, int]]) -> _Spans:
    for start, stop in windows:
        for match in forms.CARD.finditer(text, start, stop):
            digits = re.sub(r"\D", "", match[0])
            if forms.ISSUED.fullmatch(digits) and checksums.luhn(digits):
                yield match.span()


def _ibans(text: str) -> _Spans:
    for match in forms.IBAN.finditer(text):
        length = checksums.iban_length(match[0][:2])
        if not length or text[match.start() - 1 : match.start()].isalnum():
            continue
        whole = re.compile(rf"[A-Z0-9](?: ?[A-Z0-9]){{{length - 1}}}(?![A-Za-z0-9])")
        account = whole.match(text, match.start())
        if account and checksums.iban(account[0].replace(" ", "")):
            yield account.span()
