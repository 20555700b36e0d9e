"""Sphinx extension: leave the fields of named tuples out of the API pages.

Their class documents them; Python's own docstring is only "Alias for field number 0".
"""


def setup(app) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True}


def skip(app, what, name, thing, skip, options) -> bool | None:
    """Whether to leave out a member of a class; None lets Sphinx decide."""
    return True if str(getattr(thing, "__doc__", "")).startswith("Alias for field number") else None
