"""Make text from outside, such as file names, safe to print."""

from collections.abc import Sequence

_PRINTABLE = "\u00a0\u200c\u200d\u3000"  # spaces and joiners that some scripts need


def printable(text: object) -> str:
    """`str(text)` with every unprintable character replaced by an escape.

    For example, a line break, a terminal control sequence or a byte that is not UTF-8 in a file name appears
    as \\n, \\x1b or \\udcff.
    """
    return "".join(
        one if one.isprintable() or one in _PRINTABLE else one.encode("unicode_escape").decode("ascii")
        for one in str(text)
    )


def listed(texts: Sequence[str], shown: int = 5) -> str:
    """The number of texts, and the first few of them.

    >>> listed(["yes", "no", "up"], shown=2)
    '3: yes; no; and 1 more'
    """
    rest = (f"and {len(texts) - shown} more",) if len(texts) > shown else ()
    return "nothing" if not texts else f"{len(texts)}: {'; '.join((*texts[:shown], *rest))}"
