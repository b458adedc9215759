"""What to type where an optional part is not installed: one wording for every message that names an extra."""

from __future__ import annotations


def install_line(extra: str = "") -> str:
    """The command that installs an extra, or the base for "": from a package index, and in a checkout."""
    brackets = f"[{extra}]" if extra else ""
    return f"pip install 'rosacea{brackets}' (in a checkout: pip install '.{brackets}')"


def missing(what: str, package: str, extra: str) -> str:
    """The message that `what` needs a package that is not installed, and how to install it."""
    return f"{what} needs {package}, which is not installed: {install_line(extra)}"
