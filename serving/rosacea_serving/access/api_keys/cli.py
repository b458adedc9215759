"""`rosacea keys`: make, list and revoke API keys of `rosacea serve`."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from rosacea_client.secrets import write_secret

from .file import changing, read_records
from .keys import make_key, show

DAY_SECONDS = 86_400.0

File = Annotated[Path, typer.Option("--file", help="The file of keys, `api_keys` of `rosacea serve`.")]

app = typer.Typer(help="API keys of `rosacea serve`; a running service takes changes by itself.", no_args_is_help=True)


@app.command()
def create(
    file: File,
    principal: Annotated[str, typer.Option("--principal", help="Whose key it is. Quotas are by principal.")],
    days: Annotated[float, typer.Option("--days", min=0.001, max=3660, help="How long it is valid.")] = 90.0,
    not_before: Annotated[datetime | None, typer.Option("--not-before", help="UTC; from now unless said.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the key to this new file, not here.")] = None,
) -> None:
    """Create an API key. It is shown only once; the file stores its hash."""
    begin = not_before.replace(tzinfo=UTC).timestamp() if not_before else time.time()
    with changing(file) as records:
        key, record = make_key(principal, begin, begin + days * DAY_SECONDS, [each.id for each in records])
        records.append(record)
        if out is not None:
            write_secret(out, f"{key}\n".encode())
    typer.echo(show(record, time.time()), err=True)
    typer.echo(key if out is None else out)


@app.command("list")
def list_keys(file: File) -> None:
    """List the keys with id, state, expiry and principal."""
    for record in read_records(file):
        typer.echo(show(record, time.time()))


@app.command()
def revoke(
    file: File, key_id: Annotated[str, typer.Argument(metavar="ID", help="As `rosacea keys list` shows it.")]
) -> None:
    """Revoke a key permanently; running services refuse it within two seconds."""
    with changing(file) as records:
        places = [place for place, record in enumerate(records) if record.id == key_id]
        if not places:
            raise ValueError(f"ID must be that of a key in {file}, got {key_id[:12]!r}")
        (place,) = places
        records[place] = replace(records[place], revoked=True)
    typer.echo(show(records[place], time.time()), err=True)
