"""Names that others chose, made safe to print."""


def printable(text: object) -> str:
    """`str(text)` with every character that cannot be shown as itself written as an escape.

    So a line break, a terminal's control sequence or a byte that is no UTF-8 in the name of a file or class
    comes out as \\n, \\x1b or \\udcff.
    """
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in str(text)
    )
