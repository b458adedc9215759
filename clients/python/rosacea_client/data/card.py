"""Data card (README.md) of a data set, in Hugging Face's format."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rosacea_client.data.dataset_spec import DatasetSpec

# Which files are the data set: beside them lie lists and manifests, which readers of folders would take for data.
CONFIG = 'configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: "{files}"\n'
FILES = {"parquet": "shard-*.parquet", "webdataset": "shard-*.tar", "imagefolder": "shard-*/**"}
TAGS = ["synthetic", "dermatology", "rosacea"]
SIZES = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]


def data_card(spec: DatasetSpec, complete: Sequence[dict[str, Any]], class_names: Sequence[str] = ()) -> str:
    """The data card's text: contents, origin, intended and excluded uses."""
    images, size = sum(shard["count"] for shard in complete), sum(shard["bytes"] for shard in complete)
    settings = {name: value for name, value in asdict(spec.look).items() if value is not None}
    category = next((name for most, name in SIZES if spec.count < most), "n>10M")
    data_files = CONFIG.format(files=FILES[spec.form]) if spec.form in FILES else ""
    return f"""---
pretty_name: Synthetic faces with rosacea
tags: {json.dumps(TAGS)}
size_categories: ["{category}"]
{data_files}---

# Synthetic faces with rosacea

Every image in here was drawn by a trained model. None is a photograph, and nobody is shown. For research and
education only, not for diagnosis. The model can have learnt what its training set lacks or holds too much of, and may
come close to single pictures of it: see the model's own card.

| | |
|---|---|
| images | {images} of {spec.count}, {size} bytes |
| shards | {len(complete)} of {spec.shards}, up to {spec.shard_size} images each, {spec.form} |
| model | `{spec.revision}` |
| plan | `{json.dumps(spec.plan.to_json())}` |
| settings | `{json.dumps(settings)}` |
| classes | {_classes(spec, class_names)} |
| SHA-256 of all this | `{spec.digest}` |

`shard-*.jsonl` holds the exact request and the SHA-256 of every image: asking the same model again gives the same
image, byte for byte as long as the fingerprint is the same. `manifest.json` has the SHA-256 of each shard; the same
command checks all of them, and makes again what is missing or damaged.

If real images are trained on beside these, put both through the same coding and the same resizing, or a classifier
learns the difference.
"""


def _classes(spec: DatasetSpec, names: Sequence[str]) -> str:
    if not spec.classes:
        return "none: the model is unconditional"
    listed = ", ".join(f"{number} = `{name}`" for number, name in enumerate(names))
    # A name is somebody else's text: it must not end the cell that it stands in.
    return f"{spec.classes}{': ' if listed else ''}{listed}".replace("|", "\\|")
