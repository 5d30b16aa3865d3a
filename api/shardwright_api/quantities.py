"""Kubernetes quantities of bytes, as the CRDs allow them: digits, a decimal part, a binary or decimal suffix."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from typing import Final

LARGEST: Final = 2**53 - 1
"""The most bytes that a quantity may say: what JSON numbers hold exactly."""
_SHAPE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(|Ki|Mi|Gi|Ti|k|M|G|T)")
_UNITS: Final = {
    "": 1,
    "Ki": 1024,
    "Mi": 1024**2,
    "Gi": 1024**3,
    "Ti": 1024**4,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
}


def parse_bytes(text: str) -> int:
    """Read a quantity as bytes, a fraction of a byte rounded up. Raise `ValueError` saying what is wrong with it."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no quantity of bytes: write it like 512Mi, 1.5Gi or 1000000")
    number, unit = match.groups()
    size = int((Decimal(number) * _UNITS[unit]).to_integral_value(ROUND_CEILING))
    if size > LARGEST:
        raise ValueError(f"{text!r} is more than {LARGEST} bytes")
    return size
