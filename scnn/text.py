"""Names that others chose, made safe to print."""

from collections.abc import Sequence

_PRINTABLE = "\u00a0\u200c\u200d\u3000"  # spaces and joiners that words of some scripts need


def printable(text: object) -> str:
    """`str(text)` with every character that cannot be shown as itself written as an escape.

    So a line break, a terminal's control sequence or a byte that is no UTF-8 in the name of a file or class
    comes out as \\n, \\x1b or \\udcff.
    """
    return "".join(
        one if one.isprintable() or one in _PRINTABLE else one.encode("unicode_escape").decode("ascii")
        for one in str(text)
    )


def listed(texts: Sequence[str], shown: int = 5) -> str:
    """How many texts there are, and the first of them.

    >>> listed(["yes", "no", "up"], shown=2)
    '3: yes; no; and 1 more'
    """
    more = (f"and {len(texts) - shown} more",) if len(texts) > shown else ()
    return "nothing" if not texts else f"{len(texts)}: {'; '.join((*texts[:shown], *more))}"
