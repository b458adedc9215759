"""Entry point for torchrun: `torchrun --nproc-per-node 2 -m rosacea_model.training --data ... --outdir ...`."""

from __future__ import annotations

import sys

import typer

from ..commands.train import train
from ..errors import ModelError

FAILED, INVALID = 1, 2


def main() -> None:
    """Run `train`; expected errors end with one line and an exit code."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(train)
    try:
        app()
    except (ModelError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(INVALID if isinstance(error, ValueError) else getattr(error, "exit_code", FAILED))


if __name__ == "__main__":
    main()
