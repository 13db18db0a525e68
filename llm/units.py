"""Numbers as a person reads them: 12.4k, 1.24B, 310 GFLOP/s, 15.2 GiB, 3m12s."""

import math

_SI = ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k"))
_COUNT = ((12, "T"), (9, "B"), (6, "M"), (3, "k"))
_BINARY = ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB"))


def count(x: float) -> str:
    """A count of things in three digits: 512, 12.4k, 1.24B."""
    digits, suffix = _scaled(x, _COUNT)
    return digits + suffix


def quantity(x: float, unit: str) -> str:
    """A quantity in three digits with an SI prefix: 310 GFLOP/s."""
    digits, prefix = _scaled(x, _SI)
    return f"{digits} {prefix}{unit}"


def size(x: float) -> str:
    """Bytes in three digits: 15.2 GiB."""
    for power, unit in _BINARY:
        if abs(x) >= 0.9995 * 1024**power:
            return f"{_three_digits(x / 1024**power)} {unit}"
    return f"{x:.0f} B"


def duration(seconds: float) -> str:
    """Time in its two largest units: 4.2s, 42s, 3m12s, 5h07m, 12d03h."""
    if not math.isfinite(seconds):
        return "unknown"
    if abs(seconds) < 9.95:
        return f"{seconds:.1f}s"
    total = round(seconds)
    for big, small, unit, next_unit in (
        (86400, 3600, "d", "h"),
        (3600, 60, "h", "m"),
        (60, 1, "m", "s"),
    ):
        if total >= big:
            return f"{total // big}{unit}{total % big // small:02d}{next_unit}"
    return f"{total}s"


def _scaled(x: float, scale) -> tuple[str, str]:
    if math.isfinite(x):
        for exponent, suffix in scale:
            # 999.5 would round to 1000 of the smaller unit.
            if abs(x) >= 0.9995 * 10**exponent:
                return _three_digits(x / 10**exponent), suffix
        return _three_digits(x), ""
    return str(x), ""


def _three_digits(x: float) -> str:
    if x == int(x) and abs(x) < 1000:
        return str(int(x))
    size = abs(x)
    return f"{x:.{0 if size >= 99.95 else 1 if size >= 9.995 else 2}f}"
