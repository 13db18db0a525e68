"""The forms that personal data and secrets have, as patterns; `llm/pii.py` uses them.

Sources: the numbering plans of ITU E.164 and of the countries named; ISO/IEC 7812 for
who issues a card; the documentation of those who issue keys.
"""

import re
from collections.abc import Callable

from llm import checksums

# Endings of addresses: any country, and the general ones that are much used. A closed
# list, since x@w.grad and icon@2x.png have the form of an address.
_GENERAL = (
    "com org net edu gov mil int info biz name pro mobi coop aero museum jobs "
    "travel asia app dev page blog cloud online site shop store tech email live "
    "news media world club agency design digital group solutions services systems "
    "works today life space website xyz top work law health bank academy "
    "engineering consulting network software studio team company global "
    "international foundation institute science university berlin london paris "
    "wien bayern koeln hamburg nyc tokyo eus technology education school college "
    "training careers computer graphics photography marketing management partners "
    "ventures holdings capital finance financial insurance legal lawyer attorney "
    "clinic dental hospital care church charity community construction "
    "contractors energy engineer enterprises industries productions properties "
    "realestate restaurant hotel travel tours vacations events wedding social "
    "press theater gallery museum fitness yoga cafe bike garden farm vet scot "
    "wales irish swiss brussels amsterdam vienna madrid barcelona moscow istanbul "
    "capetown sydney melbourne boston miami quebec nrw saarland tirol ruhr "
    "corsica alsace gal cat bzh"
)
ENDINGS = frozenset(_GENERAL.split())
NO_COUNTRIES = {"gz", "xz", "js", "db"}  # that files end in
LOCAL = re.compile(r"[\w.+%'’-]{1,64}\Z")
DOMAIN = re.compile(r"(?:[^\W_](?:[^\W_]|-){0,62}\.)+([A-Za-z]{2,24})(?![\w(-]|\.\w)")

IPV4 = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\.*\w)")
IPV6 = re.compile(r"(?i)(?:[23][0-9a-f]{3}|f[cde][0-9a-f]{2}):[0-9a-f:]*[0-9a-f:]")
IS_VERSION = re.compile(
    r"(?i)(?:[\w.:+-]|[a-z0-9_]/|[=<>~^]=\s?|\b(?:v|ver|version|release|build|firmware|"
    r"section|chapter|clause|rfc|oid|driver)s?[.:]?\s?[\"']?)\Z"
)

# A stretch of digits and what may stand between them: where numbers are looked for.
STRETCH = re.compile(r"\d[\d\u00a0 ().+/-]{4,}\d")
REACH = 16  # characters before such a stretch: letters, the rest of a number, `tel.`
_COUNTRY = (
    r"(?:1|7|2(?:0|7|[1-689]\d)|3(?:[0-469]|[578]\d)|4(?:[013-9]|2\d)|5(?:[1-8]|[09]\d)"
    r"|6(?:[0-6]|[7-9]\d)|8(?:[1246]|[0357-9]\d)|9(?:[0-58]|[679]\d))"
)
_GAP = r"[ \u00a0.\-]"
PHONES = (
    # +44 20 7946 0958, 0049 (0)30 123456
    re.compile(
        rf"(?<![\w+.])(?:\+|00(?={_COUNTRY}{_GAP})){_COUNTRY}"
        rf"(?:(?:[ \u00a0-]|\.(?=\d\d))?/?\(?\d\)?){{6,12}}(?!{_GAP}?\d|\w)"
    ),
    # (212) 555-0123, 1-800-555-0199
    re.compile(
        rf"(?<![\w.+-])(?<!\d[ \u00a0])(?:1{_GAP})?(?:\([2-9][0-8]\d\)[ \u00a0]?|"
        rf"[2-9][0-8]\d{_GAP})[2-9]\d\d{_GAP}\d{{4}}(?!{_GAP}?\d|\w)"
    ),
    # 06.12.34.56.78
    re.compile(r"(?<![\w.-])0[1-9](?:\.\d\d){4}(?![\w-]|\.\d)"),
    # 020 7946 0958, 030/123456, (0171) 1234567, 01 23 45 67 89
    re.compile(
        r"(?<![\w.,:/$€£-])(?<!\d[ \u00a0])(?!0\d[./-]\d\d[./-])\(?0[1-9]\d{0,3}\)?"
        r"(?:(?: ?[/.-] ?|[ \u00a0])\d{2,8}){1,5}(?![ \u00a0./-]{0,3}\d|\w|%|[.,]\d)"
    ),
)
ANY_PHONE = re.compile(r"\(?\d(?:[ \u00a0./()-]{0,2}\d){6,12}(?![\d\w])")
CALLED = re.compile(
    r"(?i)\b(?:tel|tele(?:ph|f)on[eo]?|ph|phone|mobile?|m[oó]vil|cell|fax|call|handy|"
    r"whatsapp|t[eé]l|text|sms|dial|ring|hotline|number is)\b[.:#]{0,2}[ \u00a0]{0,2}\Z"
)
CARD = re.compile(
    r"(?<![\w.-])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?"
    r"|3\d{3}([ -])\d{6}\2\d{4,5})(?![\w]|[ .-]\d)"
)
ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)"
    r"\d{12}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|(?:6011|65\d\d|64[4-9]\d|35\d\d)\d{12}"
)
IBAN = re.compile(r"[A-Z]{2}\d\d(?=[ ]?[A-Z0-9]{4})")
ITALIAN = re.compile(r"\b[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]\b")
NUMBERS: tuple[tuple[str, re.Pattern, Callable[[str], bool]], ...] = (
    ("us_ssn", re.compile(
        r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-])"
    ), lambda digits: True),
    ("uk_nino", re.compile(
        r"\b(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"
        r"( ?)\d\d\1\d\d\1\d\d ?[A-D]\b"
    ), lambda number: True),
    ("es_dni", re.compile(
        r"(?<![\w./-])(?:\d{8}|[XYZ]-?\d{7})-?[A-HJ-NP-TV-Z]\b"
    ), checksums.spanish),
    ("br_cpf", re.compile(
        r"(?<![\w.-])\d{3}\.\d{3}\.\d{3}-\d\d(?![\w-])"
    ), checksums.brazilian),
    ("fr_nir", re.compile(
        r"(?<![\w.-])[12]( ?)\d\d\1(?:0[1-9]|1[0-2])\1(?:\d\d|2[AB])\1\d{3}\1\d{3}"
        r" ?\d\d(?![\w-])"
    ), checksums.french),
    ("in_aadhaar", re.compile(
        r"(?<![\w.-])(?<!\d )[2-9]\d{3}([ -])\d{4}\1\d{4}(?![\w]|[ -]\d)"
    ), checksums.verhoeff),
    ("cn_id", re.compile(
        r"(?<![\w.-])[1-9]\d{5}(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
        r"\d{3}[\dX]\b"
    ), checksums.chinese),
)  # fmt: skip

# Keys that say whose they are: what each begins with, and the whole.
_KEYS = (
    (("AKIA", "ASIA"), r"(?<![A-Za-z0-9])A[KS]IA[A-Z0-9]{16}(?![A-Za-z0-9])"),
    (("aws_secret", "AWS_SECRET"),
     r"(?i)secret_access_key[\"']?\s{0,3}[=:]\s{0,3}[\"']?(?P<secret>[A-Za-z0-9/+]{40})\b"),
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"\bgh[pousr]_[A-Za-z0-9]{36,251}\b"),
    (("github_pat_",), r"\bgithub_pat_\w{60,}\b"),
    (("glpat-",), r"\bglpat-[\w-]{20,}"),
    (("xox",), r"\bxox[abeprs]-[0-9A-Za-z-]{10,}"),
    (("hooks.slack.com",), r"hooks\.slack\.com/services/T\w{6,}/B\w{6,}/\w{16,}"),
    (("AIza",), r"\bAIza[\w-]{35}(?![\w-])"),
    (("ya29.",), r"\bya29\.[\w-]{20,}"),
    (("sk_live_", "rk_live_"), r"\b[rs]k_live_[0-9A-Za-z]{20,}"),
    (("sk-",), r"(?<![\w-])sk-(?=[\w-]*\d)[A-Za-z0-9_-]{32,}"),
    (("hf_",), r"\bhf_[A-Za-z0-9]{34,}\b"),
    (("npm_",), r"\bnpm_[A-Za-z0-9]{36}\b"),
    (("pypi-",), r"\bpypi-[\w-]{50,}"),
    (("SG.",), r"\bSG\.[\w-]{22}\.[\w-]{43}"),
    (("eyJ",), r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
    (("://",), r"(?<=://)[^\s/:@?#\"'<>]{1,64}:[^\s/:@\"'<>${}]{3,64}(?=@[\w\[])"),
    (("PRIVATE KEY",),
     r"-----BEGIN (?:[A-Z]{2,9} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
     r"(?:(?!-----)[\s\S]){1,20000}"
     r"(?:-----END (?:[A-Z]{2,9} ){0,2}PRIVATE KEY(?: BLOCK)?-----)?"),
)  # fmt: skip
SECRETS = tuple((begins, re.compile(whole)) for begins, whole in _KEYS)
# What a program or a file of settings gives to a name, with a letter and a digit; not
# where it is plainly to be put in ("<password1>", "${TOKEN_1}", "xxxx1") or is a path.
# A text that has none of the parts of such names needs no search.
GIVEN = re.compile(
    r"[:=>,]\s{0,3}[bru]{0,2}([\"'`])(?=[^\s\"'`]{0,127}[A-Za-z])"
    r"(?=[^\s\"'`]{0,127}\d)(?P<secret>[^\s\"'`<>{}]{8,128})\1"
)
SET = re.compile(
    r"(?<![\w$.-])(?!(?:EOS|BOS|PAD|UNK|SEP|CLS|MASK)_)[A-Z0-9_]{0,40}(?:PASSW(?:OR)?D|"
    r"SECRET|TOKEN|(?:API|ACCESS|SECRET|PRIVATE|ENCRYPTION|SIGNING|MASTER)_?KEY)"
    r"=(?!=)(?=\S{0,127}[A-Za-z])(?=\S{0,127}\d)"
    r"(?P<secret>[^\s\"'`#<>{}()$][^\s\"'`<>{}()$]{7,127})(?!\S)"
)
NAME_PARTS = (
    "assw", "ASSW", "assphr", "ASSPHR", "pwd", "PWD", "ecret", "ECRET", "oken", "OKEN",
    "_key", "_KEY", "-key", "-KEY", "apikey", "APIKEY", "Key",
)  # fmt: skip
SET_PARTS = ("PASSW", "SECRET", "TOKEN", "KEY")
# Paths and addresses, names of a program, words with a number, and what stands for one.
NO_SECRET = re.compile(
    r"(?i)(?:[.~]{0,2}/[\w.-]+){2,}/?\Z|[.~]{1,2}/|\w{1,8}://|[a-z_]\w*(?:\.[a-z_]\w*)+\Z|"
    r"(?:[a-z]+-){2,}\d{0,2}\Z|.*(?:\$\(|\.\.\.|xxx|\*\*\*|your|example|placeholder)"
)
FOR_SECRETS = re.compile(
    r"(?i)(?:passw(?:or)?d|passphrase|pwd|secret|(?:api|access|auth|secret)[_-]?token|"
    r"(?:api|access|auth|secret|private|encryption|signing|master|account)[_-]?key)"
    # Then the end of what it is written in, and a type.
    r"[\"'`]?\]?\s{0,3}(?::\s{0,2}[\w.]{1,20}\s{0,3})?[:=]?\Z"
)
CALLED_WITH = re.compile(r"\(\s{0,2}([\"'])[\w.-]{0,40}\1\Z")  # define('NAME', …
