"""Sphinx extension: the API page leaves out the fields of named tuples, as those of other classes.

The class tells what they are; Python itself only says "Alias for field number 0" of them.
"""


def setup(app) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True}


def skip(app, what, name, thing, skip, options) -> bool | None:
    """Whether to leave out a member of a class; None leaves it to Sphinx."""
    return True if str(getattr(thing, "__doc__", "")).startswith("Alias for field number") else None
