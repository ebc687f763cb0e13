"""Numbers as a person reads them."""

PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
MISSING = "-"


def quantity(value: float | None, unit: str) -> str:
    """Return a number in four digits, its unit prefixed, `-` if it is missing: 1107045 J is `1.107 MJ`."""
    if value is None:
        return MISSING
    factor, prefix = next(((f, p) for f, p in PREFIXES if abs(value) >= 0.99995 * f), (1.0, ""))
    digits = f"{value / factor:#.4g}".rstrip(".")
    return f"{digits} {prefix}{unit}"


def per_second(value: float | None) -> str:
    """Return a rate without a prefix, which would be metres here, `-` if it is missing: `5.527 /s`."""
    return MISSING if value is None else f"{value:,.3f} /s"


def money(value: float | None) -> str:
    """Return a price in four digits, without its currency, `-` if it is missing."""
    return MISSING if value is None else f"{value:#.4g}"


def share(part: float | None, whole: float | None) -> str:
    """Return what part of the whole that is, in percent, `-` if there is none."""
    return f"{100 * part / whole:.1f} %" if part is not None and whole else MISSING
