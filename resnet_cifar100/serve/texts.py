"""What the page says about its model and to programmers, in Markdown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnet_cifar100.config import Config
from resnet_cifar100.constants import SYNTHETIC
from resnet_cifar100.data.images import MAX_BYTES, MAX_PIXELS
from resnet_cifar100.description import result_of
from resnet_cifar100.markdown import code, commit, duration, markdown_table, plain
from resnet_cifar100.serve.predictor import LEAST_PROB

USAGE = f"""
ADDRESS is that of this page, for example http://127.0.0.1:7860.

One request with the bytes of a picture (PNG, JPEG, WebP, BMP, GIF or TIFF, up to
{MAX_BYTES // 10**6} MB and {MAX_PIXELS // 10**6} megapixels) gives one JSON answer:

```bash
curl --data-binary @picture.jpg ADDRESS/classify
```

```json
{{"class": "apple", "probability": 0.9731, "sure": true, "doubt": "",
 "classes": [{{"class": "apple", "superclass": "fruit_and_vegetables", "probability": 0.9731}},
             "and four more"],
 "milliseconds": 9.1}}
```

A picture that is refused is a 422 with `{{"error": "why"}}`; a server that is busy says 503: try
again after a second. `GET /health` says `{{"status": "ok"}}`. With Gradio's client:

```python
from gradio_client import Client, handle_file

client = Client("ADDRESS")
print(client.predict(handle_file("picture.jpg"), api_name="/classify"))
```
"""


def about(description: Mapping[str, Any], path: Path) -> str:
    """Return the model card: what the network is, how good, how made, what it cannot do."""
    provenance = description["provenance"]
    config = Config.from_json(provenance["config"])
    stamp = provenance["environment"]
    metrics = provenance["metrics"]
    result = result_of(provenance)
    seconds = metrics.get("train_seconds")
    rows = {
        "Network": plain(description["model"]["name"]),
        "Weights": f"{code(path.name)}, {path.stat().st_size / 1e6:.1f} MB",
        "Trained on": plain(provenance["dataset"])
        + f", recipe {code(config.recipe)}, seed {config.seed}",
        "Test top-1": _percent(result.get("test/top1")),
        "Test top-5": _percent(result.get("test/top5")),
        "Weights chosen by": plain(result.get("chosen_by", "an unfinished run")),
        "Training time": duration(seconds) if seconds else "?",
        "Command": code(str(stamp.get("command") or "?")),
        "Commit": commit(stamp),
        "Machine": plain(f"{stamp.get('gpu') or stamp.get('cpu')}, torch {stamp.get('torch')}"),
        "Calibration": plain(description["calibration"]["source"]),
    }
    table = markdown_table(["What", "Value"], list(rows.items()))
    synthetic = provenance["dataset"] == SYNTHETIC
    notice = "**This model knows SYNTHETIC drawn shapes only.**\n\n" if synthetic else ""
    limit = _UNCALIBRATED if description["calibration"]["most_strangeness"] is None else _STRANGE
    limits = _SYNTHETIC_LIMITS if synthetic else _LIMITS
    return f"{notice}{table}\n{_NOT_SURE}{limit}{limits}"


def _percent(figure: float | None) -> str:
    return "not measured" if figure is None else f"{figure:.2%}"


_NOT_SURE = f"""
### What "not sure" means

The page gives a name only where that has a probability of {LEAST_PROB:.0%} or more.
"""

_STRANGE = """The probability is calibrated, and the picture must not be unlike the data either: its
features must point towards those of some class at least as well as those of 95 of 100 held-out
pictures do.
"""

_UNCALIBRATED = """The probability is not calibrated, and no picture is called unlike the data:
`python -m resnet_cifar100 calibrate --held-out CHECKPOINT` mends both.
"""

_SYNTHETIC_LIMITS = """
### What it cannot do

It knows drawn shapes and nothing else. Nothing that it says of a photograph means anything.
"""

_LIMITS = """
### What it cannot do

It knows 100 things (people, animals, plants, vehicles, furniture, landscapes) from small pictures,
and nothing else: whatever it is shown, it will name one of them.
Every picture is cut to its centre square and shrunk to 32 x 32, so fill the frame with one thing.
It is a teaching model; nothing should depend on it.
"""
