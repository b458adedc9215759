"""docs/SETTINGS.md, made from the settings themselves: `python -m rosacea_serving.settings_doc > docs/SETTINGS.md`."""

from __future__ import annotations

from typing import Any

from .settings import CONFIG_VARIABLE, PREFIX, Settings

HEAD = f"""# Settings of `rosacea serve`

Made by `make settings` from `serving/rosacea_serving/settings.py`; a test keeps it so.

Flags beat environment variables, these beat the configuration file (`--config serve.toml`, or `{CONFIG_VARIABLE}`),
and that beats the defaults. In the file, each setting stands under its name:

```toml
models = ["models/demo", "models/other.mar"]
address = "0.0.0.0:7433"
tls_certificate = "/etc/rosacea/server.pem"
tls_key = "/etc/rosacea/server.key"
api_keys = "/etc/rosacea/keys.jsonl"
queue_images = 1000
```

`rosacea serve --check` reads all of it, verifies the models, prints what would be in force, and starts nothing: exit
code 0, 1 for a model that cannot be served, 2 for a wrong setting.

On SIGHUP the service reads the configuration and the models again. `models` takes effect without failing a call: a new
revision is started and proven beside the old one before calls reach it, and where it is refused, everything stays as
it was and the log says why. Other settings need a restart; what is in the files of certificates, keys and issuers' keys
does not: a change is taken by itself within two seconds, and one that is broken is left alone and told.

An address that other machines can reach needs TLS and identity, or `insecure = true`: then somebody else, such as a
service mesh, sees to both.

| setting | flag | variable | default | what it is |
|---|---|---|---|---|
"""


def markdown() -> str:
    """The whole page."""
    return HEAD + "".join(f"{row(name)}\n" for name in Settings.model_fields)


def row(name: str) -> str:
    field = Settings.model_fields[name]
    flag = "MODELS ..." if name == "models" else f"--{name.replace('_', '-')}"
    return f"| `{name}` | `{flag}` | `{PREFIX}{name.upper()}` | {shown(field.default)} | {field.description} |"


def shown(default: Any) -> str:
    if default in (None, ()):
        return "unset"
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, int):
        return f"{default:,}"
    return f"{default:g}" if isinstance(default, float) else str(default)


if __name__ == "__main__":
    print(markdown(), end="")
