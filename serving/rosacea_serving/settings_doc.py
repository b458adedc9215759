"""Generates docs/SETTINGS.md: `python -m rosacea_serving.settings_doc > docs/SETTINGS.md`."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from rosacea_model.commands.options import PANELS, flags_of
from rosacea_model.commands.options import PREFIX as TRAIN_PREFIX
from rosacea_model.training.config import TrainConfig

from .flags import described, flag
from .settings import CONFIG_VARIABLE, PREFIX, Settings, groups

if TYPE_CHECKING:
    from collections.abc import Iterable

HEAD = f"""# Settings

Made by `make settings` from `serving/rosacea_serving/settings.py` and `model/rosacea_model/commands/options.py`; a test
keeps it so.

## `rosacea serve`

Flags beat environment variables, these beat the configuration file (`--config serve.toml`, or `{CONFIG_VARIABLE}`),
and that beats the defaults. A variable is `{PREFIX}` and the setting's name in capitals, such as
`{PREFIX}QUEUE_IMAGES`. In the file, each setting stands under its name:

```toml
models = ["models/demo", "models/other.mar"]
address = "0.0.0.0:7433"
tls_certificate = "/etc/rosacea/server.pem"
tls_key = "/etc/rosacea/server.key"
api_keys = "/etc/rosacea/keys.jsonl"
queue_images = 1000
```

`rosacea serve --check` reads all of it, verifies the models, prints what would be in effect, and starts nothing: exit
code 0, 1 for a model that cannot be served, 2 for a wrong setting.

On SIGHUP the service reads the configuration and the models again. `models` takes effect without failing a call: a new
revision is started and tested beside the old one before calls reach it, and if it is refused, everything stays as
it was and the log says why. Other settings need a restart. Files of certificates, keys and issuers' keys do not: a
change is applied within two seconds, and a broken file is ignored with a warning.

An address that other machines can reach needs TLS and identity, or `insecure = true` where something else, such as a
service mesh, provides both.
"""
TRAIN = f"""
## `rosacea train`

Flags beat environment variables, these beat a TOML file (`--config train.toml`, or `{TRAIN_PREFIX}CONFIG`), that beats
the preset, and the preset beats the defaults. A variable is `{TRAIN_PREFIX}` and the setting's name in capitals, such
as `{TRAIN_PREFIX}BATCH`. The file may hold the command's other options too, and writes `none` as a text:

```toml
data = "faces.zip"
outdir = "runs/first"
preset = "small-data"
total_kimg = 500
mirror = true
snap_minutes = "none"
```

Resolution, channels and labels follow the data. `rosacea train --dry-run` prints every setting as it would be and
stops. A run that continues with `--resume` keeps its settings; another value is refused where it would make it another
run. Where no default stands, it follows from the resolution and the batch.
"""
COLUMNS = "| setting | flag | default | meaning |\n|---|---|---|---|\n"


def markdown() -> str:
    """Text of docs/SETTINGS.md."""
    serve = [table(panel, map(serve_row, names)) for panel, names in groups().items()]
    train = [table(panel, map(train_row, texts.items())) for panel, texts in PANELS.items()]
    return HEAD + "".join(serve) + TRAIN + "".join(train)


def table(panel: str, rows: Iterable[str]) -> str:
    return f"\n### {panel}\n\n{COLUMNS}{''.join(rows)}"


def serve_row(name: str) -> str:
    return row(name, [flag(name)], Settings.model_fields[name].default, described(name))


def train_row(entry: tuple[str, str]) -> str:
    name, text = entry
    return row(name, flags_of(name), train_defaults()[name], text)


def train_defaults() -> dict[str, Any]:
    return {field.name: field.default for field in fields(TrainConfig)}


def row(name: str, flags: Iterable[str], default: Any, text: str) -> str:
    return f"| `{name}` | {', '.join(f'`{each}`' for each in flags)} | {shown(default)} | {text} |\n"


def shown(default: Any) -> str:
    if default is MISSING:
        return ""
    if default in (None, ()):
        return "unset"
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, int):
        return f"{default:,}"
    return f"{default:g}" if isinstance(default, float) else str(default)


if __name__ == "__main__":
    print(markdown(), end="")
