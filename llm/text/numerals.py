"""What number a text writes, exactly: signs, points, thousands, fractions, per cent.

Answers are compared as numbers where both are numbers. What a text writes is read as a
`Fraction`, so that no digit is lost; a form that is not known is no number, and never a
part of one.

    read("-$1,234.50")      # Fraction(-2469, 2)
    read("12,5")            # None: no thousands, and the point is '.'
    read("12,5", point=",") # Fraction(25, 2)
    last("so it is **7/8**.")   # '7/8'
"""

import re
import unicodedata
from fractions import Fraction

_MINUS = str.maketrans({"−": "-", "–": "-", "﹣": "-", "－": "-"})
_SPACES = " \u00a0\u2009\u202f"  # between thousands
_FINE = "[\u00a0\u2009\u202f]"  # of these, those that stand between no two words
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALED = re.compile(rf"(.+?)\s+({'|'.join(_SCALES)})s?", re.IGNORECASE | re.DOTALL)
_MOST = 1000  # of an exponent
_CURRENCY = r"(?:US\$|[$€£¥₹]|\\\$)"
_FRACTION = re.compile(r"\\[dt]?frac\s*\{(-?\d+)\}\s*\{(\d+)\}")
_TEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|mbox)\s*\{[^{}]*\}|\\[,;! ]")
_AROUND = (
    re.compile(r"\\boxed\s*\{(.*)\}", re.DOTALL),
    re.compile(r"\\\((.*)\\\)|\\\[(.*)\\\]|\$\$(.*)\$\$|\$([^$]*)\$", re.DOTALL),
    re.compile(r"\*\*(.*)\*\*|__(.*)__|`(.*)`|\"(.*)\"|'(.*)'|\((.*)\)", re.DOTALL),
)
_TEX_FRACTION = r"\\[dt]?frac\s*\{-?\d+\}\s*\{\d+\}"
_VULGAR = "".join(map(chr, [0xBC, 0xBD, 0xBE, *range(0x2150, 0x215F), 0x2189]))
# A run of characters that is a number or none: it is not cut to make one.
_WRITTEN = re.compile(
    rf"(?<![\w.,/])(?<!\d:){_CURRENCY}?\s?[-+−–]?\s?{_CURRENCY}?\s?(?:"
    rf"{_TEX_FRACTION}"
    r"|\d+\s\d+\s?/\s?\d+(?![\d/])"  # 3 1/2
    rf"|\d{{1,3}}(?:{_FINE}\d{{3}})+(?!\d)|\d{{1,3}}(?:\ \d{{3}}){{2,}}(?!\d)"
    rf"|\d*[{_VULGAR}]|(?:\d[\d.,/]*|\.\d[\d.,/]*)(?!\d*:\d))"
    r"(?:[eE][-+]?\d+|\s*(?:[×x*·]|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*\{?-?\d+\}?"
    r"|(?:\^|\*\*)\{?-?\d+\}?)?"
    rf"(?:\s?\\?%|\s+(?:{'|'.join(_SCALES)})s?\b)?",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")


def read(text: str, *, point: str = ".") -> Fraction | None:
    """The number that a text is, None for a text that is none.

    Args:
      point: the decimal point; the other of `.` and `,` separates thousands.
    """
    text = _bare(text)
    text = _FRACTION.sub(r"\1/\2", _TEX_TEXT.sub("", text)).translate(_MINUS)
    text = re.sub(f"[{_VULGAR}]", _plain_fraction, text)
    text = re.sub(_CURRENCY, "", text, count=1).strip()
    text, percent = re.subn(r"\s*\\?%$", "", text)
    scale = 1
    if scaled := _SCALED.fullmatch(text):
        text, scale = scaled[1], 10 ** _SCALES[scaled[2].lower()]
    value = _value(text.strip(), point)
    if value is None:
        return None
    return value * scale / (100 if percent else 1)


def written(value: Fraction) -> str:
    """A number as one text, the same for all ways to write it.

    >>> written(Fraction(-1, 2)), written(Fraction(1, 3))
    ('-0.5', '1/3')
    """
    top, bottom = value.numerator, value.denominator
    twos = fives = 0
    rest = bottom
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{top}/{bottom}"
    places = max(twos, fives)
    if not places:
        return str(top)
    digits = f"{abs(top) * 10**places // bottom:0{places + 1}d}"
    return f"{'-' if top < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def last(text: str) -> str:
    """The last number that a text writes, as it is written; '' for none.

    What stands in the last \\boxed{} comes before all else.
    """
    boxed = _BOXED.findall(text)
    if boxed:
        return boxed[-1].strip()
    numbers = list(_WRITTEN.finditer(text))
    return numbers[-1][0].strip().rstrip(".,/") if numbers else ""


def _bare(text: str) -> str:
    """A text without the marks that stand around all of it."""
    text = text.strip().removesuffix(".").lstrip("=").strip()
    for pattern in _AROUND:
        found = pattern.fullmatch(text)
        if found:
            return _bare(next(group for group in found.groups() if group is not None))
    return text


def _plain_fraction(found: re.Match) -> str:
    """½ as ` 1/2`; in front of it may stand a whole number."""
    return " " + unicodedata.normalize("NFKC", found[0]).replace("\u2044", "/")


def _value(text: str, point: str) -> Fraction | None:
    comma = "," if point == "." else "."
    c, p = re.escape(comma), re.escape(point)
    whole = rf"(?:\d{{1,3}}(?:{c}\d{{3}})+|\d{{1,3}}(?:[{_SPACES}]\d{{3}})+|\d+)"
    plain = rf"(?:{whole}(?:{p}\d*)?|{p}\d+)"
    sign = r"([-+]?)\s?"
    ten = r"\s*(?:[×x*·]|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*\{?([-+]?\d{1,4})\}?"

    def number(digits):
        for mark in (comma, *_SPACES):
            digits = digits.replace(mark, "")
        return Fraction(digits.replace(point, ".").removesuffix(".") or "0")

    if found := re.fullmatch(sign + rf"({plain})(?:[eE]([-+]?\d{{1,4}}))?", text):
        power = Fraction(10) ** int(found[3] or 0)
        made = number(found[2]) * power
    elif found := re.fullmatch(sign + rf"({plain})" + ten, text):
        made = number(found[2]) * Fraction(10) ** int(found[3])
    elif found := re.fullmatch(sign + r"(\d{1,9})(?:\^|\*\*)\{?(-?\d{1,4})\}?", text):
        base, power = int(found[2]), int(found[3])
        if abs(power) > _MOST or (power < 0 and not base):
            return None
        made = Fraction(base) ** power
    elif found := re.fullmatch(sign + rf"(?:({whole})\s+)?(\d+)\s?/\s?(\d+)", text):
        if not int(found[4]):
            return None
        made = Fraction(int(found[3]), int(found[4])) + number(found[2] or "0")
    else:
        return None
    return -made if found[1] == "-" else made
