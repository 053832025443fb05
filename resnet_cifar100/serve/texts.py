"""What the page says about its model and to programmers, in Markdown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnet_cifar100.config import Config
from resnet_cifar100.data.images import MAX_BYTES, MAX_PIXELS
from resnet_cifar100.serve.predictor import LEAST_PROB

USAGE = f"""
One request with the bytes of a picture (PNG, JPEG, WebP, BMP, GIF or TIFF, up to {MAX_BYTES // 10**6} MB
and {MAX_PIXELS // 10**6} megapixels) gives one JSON answer:

```bash
curl --data-binary @picture.jpg ADDRESS/classify
```

```json
{{"class": "apple", "probability": 0.9731, "sure": true, "doubt": "",
 "classes": [{{"class": "apple", "superclass": "fruit_and_vegetables", "probability": 0.9731}}, "..."],
 "milliseconds": 9.1}}
```

A picture that is refused is a 422 with `{{"error": "why"}}`; a server that is busy says 503: try again
after a second. `GET /health` says `{{"status": "ok"}}`. With Gradio's client:

```python
from gradio_client import Client, handle_file

client = Client("ADDRESS")
print(client.predict(handle_file("picture.jpg"), api_name="/classify"))
```

or its three steps by hand:

```bash
FILE=$(curl -s -F files=@picture.jpg ADDRESS/gradio_api/upload | cut -d'"' -f2)
EVENT=$(curl -s -H 'Content-Type: application/json' ADDRESS/gradio_api/call/classify \\
  -d '{{"data": [{{"path": "'$FILE'", "meta": {{"_type": "gradio.FileData"}}}}]}}' | cut -d'"' -f4)
curl -sN ADDRESS/gradio_api/call/classify/$EVENT
```
"""


def about(description: Mapping[str, Any], path: Path) -> str:
    """Return the model card: what the network is, how good, how made, what it cannot do."""
    provenance = description["provenance"]
    config = Config.from_json(provenance["config"])
    stamp = provenance["environment"]
    rows = {
        "network": description["model"]["name"],
        "weights": f"`{path.name}`, {path.stat().st_size / 1e6:.1f} MB",
        "trained on": f"{provenance['dataset']}, recipe `{config.recipe}`, seed {config.seed}",
        **{name: _figure(name, value) for name, value in provenance["metrics"].items()},
        "command": f"`{stamp.get('command', '?')}`",
        "commit": f"`{stamp.get('commit', '')[:12] or '?'}`",
        "machine": f"{stamp.get('gpu') or stamp.get('cpu', '?')}, torch {stamp.get('torch', '?')}",
        "calibration": description["calibration"]["source"],
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    synthetic = provenance["dataset"] == "SYNTHETIC"
    notice = "**This model knows SYNTHETIC drawn shapes only.**\n\n" if synthetic else ""
    return f"{notice}| | |\n|---|---|\n{table}\n\n{_LIMITS}"


def _figure(name: str, value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2%}" if "top" in name else f"{value:.4g}"
    return str(value)


_LIMITS = f"""
### What "not sure" means

The page gives a name only where that name is more probably right than wrong (calibrated probability of
{LEAST_PROB:.0%} or more), and where the picture is not unlike the data: the free energy of the logits
([Liu et al. 2020](https://arxiv.org/abs/2010.03759)) must not be above that of 95% of held-out pictures.

### What it cannot do

It knows 100 things (people, animals, plants, vehicles, furniture, landscapes), each from 500 photographs of
32 x 32 pixels, and nothing else: whatever it is shown, it will name one of them. Every picture is cut to its
centre square and shrunk to 32 x 32, so fill the frame with one thing. It is a teaching model; nothing should depend
on it.
"""
