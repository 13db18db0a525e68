"""Check digits, which tell an account or identity number from other digits."""

import string

_IBANS = (
    "AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BR:29 BY:28 CH:21 CR:22 "
    "CY:28 CZ:24 DE:22 DK:18 DO:28 EE:20 EG:29 ES:24 FI:18 FO:18 FR:27 GB:22 GE:22 "
    "GI:23 GL:18 GR:27 GT:28 HR:21 HU:28 IE:22 IL:23 IQ:23 IS:26 IT:27 JO:30 KW:30 "
    "KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 LY:25 MC:27 MD:24 ME:22 MK:19 MR:27 "
    "MT:31 MU:30 NL:18 NO:15 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 SA:24 SC:31 "
    "SE:24 SI:19 SK:24 SM:27 ST:25 SV:28 TL:23 TN:24 TR:26 UA:29 VA:22 VG:24 XK:20"
)
_IBAN_LENGTHS = {entry[:2]: int(entry[3:]) for entry in _IBANS.split()}
# Verhoeff: the dihedral group of ten elements, and its permutation by place.
_DIHEDRAL = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_PERMUTED = (
    "0123456789", "1576283094", "5803796142", "8916043527",
    "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip
# Values of letters and digits at the odd places of an Italian codice fiscale.
_ITALIAN_ODD = dict(
    zip(
        string.digits + string.ascii_uppercase,
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18,
         20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
        strict=True,
    )
)  # fmt: skip


def luhn(digits: str) -> bool:
    """Payment cards: every second digit from the right counts twice (ISO/IEC 7812)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def verhoeff(digits: str) -> bool:
    """India's Aadhaar."""
    state = 0
    for place, digit in enumerate(reversed(digits)):
        state = int(_DIHEDRAL[state][int(_PERMUTED[place % 8][int(digit)])])
    return state == 0


def iban_length(country: str) -> int:
    """Characters of an IBAN of a country, by two letters; 0 for one without."""
    return _IBAN_LENGTHS.get(country, 0)


def iban(account: str) -> bool:
    """ISO 13616: with its head at the end and letters as numbers, 1 modulo 97."""
    if len(account) != iban_length(account[:2]):
        return False
    return int("".join(str(int(c, 36)) for c in account[4:] + account[:4])) % 97 == 1


def spanish(number: str) -> bool:
    """DNI and NIE: the letter is the number modulo 23."""
    digits = number[:-1].translate(str.maketrans("XYZ", "012"))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(digits) % 23] == number[-1]


def brazilian(digits: str) -> bool:
    """CPF: two digits, each a weighted sum modulo 11 of those before it."""
    for size in (9, 10):
        total = sum(int(digits[i]) * (size + 1 - i) for i in range(size))
        if int(digits[size]) != total * 10 % 11 % 10:
            return False
    return len(set(digits)) > 1


def french(number: str) -> bool:
    """NIR: the last two digits are 97 less the rest modulo 97; Corsica counts as 18."""
    body = number[:13].replace("2A", "19").replace("2B", "18")
    return int(number[13:]) == 97 - int(body) % 97


def italian(code: str) -> bool:
    """Codice fiscale: the last letter is a sum of values of the others, modulo 26."""
    total = sum(_ITALIAN_ODD[c] for c in code[:15:2])
    total += sum(int(c) if c.isdigit() else ord(c) - ord("A") for c in code[1:15:2])
    return chr(ord("A") + total % 26) == code[15]


def chinese(number: str) -> bool:
    """Resident identity number: ISO 7064, modulo 11, 2, with X for ten."""
    total = sum(int(digit) * pow(2, 17 - i, 11) for i, digit in enumerate(number[:17]))
    return "10X98765432"[total % 11] == number[17]
