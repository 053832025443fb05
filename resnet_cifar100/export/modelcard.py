"""The README.md of a published network: the Hub's metadata, then what a reader should know."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from huggingface_hub import (
    EvalResult,
    EvalResultEntry,
    ModelCardData,
    eval_result_entries_to_yaml,
)

from resnet_cifar100.bundle import Bundle
from resnet_cifar100.config import Config
from resnet_cifar100.constants import CIFAR100, SYNTHETIC
from resnet_cifar100.description import result_of
from resnet_cifar100.engine.log_page import part_table, taught_by
from resnet_cifar100.export.card import comparison_text
from resnet_cifar100.export.forms import Comparison
from resnet_cifar100.markdown import (
    SYNTHETIC_WARNING,
    code,
    commit,
    duration,
    markdown_table,
    plain,
)
from resnet_cifar100.models.summary import count_parameters

DATASET = "uoft-cs/cifar100"  # its name on the Hub
_METRICS = {"test/top1": "Top-1", "test/top5": "Top-5"}
_FIGURES = {
    "curves": "The run, epoch by epoch",
    "superclasses": "Recall of each class, by superclass",
    "confidence": "How sure it is, and how often it is right",
    "corruptions": "Top-1 of corrupted pictures",
}


def render_model_card(
    bundle: Bundle, repo: str, folder: Path, measured: Comparison | None, files: Sequence[str]
) -> str:
    """Return the card of the network in `folder`, which `files` describes line by line.

    `measured` are the network and its ONNX files. Figures are shown where there is a report.
    """
    config = bundle.config
    title = plain(bundle.provenance["dataset"])
    parts = [
        f"---\n{_metadata(bundle, repo, measured).to_yaml()}\n---\n",
        f"# {plain(config.model)}, trained on {title} from scratch\n",
        SYNTHETIC_WARNING if title == SYNTHETIC else "",
        f"A network of {count_parameters(bundle.model) / 1e6:.1f} million parameters. It names "
        "what is in a picture of 32 x 32 pixels: one of "
        f"{len(bundle.fine_names)} classes. It has seen {title} alone: no pretrained weights.\n",
        "## Results\n\n" + _results(bundle, measured),
        "## Use\n\n" + _USAGE.format(repo=repo) + _answers(bundle),
        "## Files\n\n" + "\n".join(files) + "\n",
        f"### The same network in each form\n\n{comparison_text(measured)}" if measured else "",
        _figures(folder),
        "## Training\n\n" + _training(bundle, config),
        "## Network\n\n" + part_table(bundle.model_config),
        "## Limits\n\n" + (_LIMITS if title != SYNTHETIC else _SYNTHETIC_LIMITS),
        "## Classes\n\n" + _classes(bundle),
        "## Licence and source\n\n" + _SOURCE,
    ]
    return "\n".join(part for part in parts if part)


def has_results(bundle: Bundle) -> bool:
    """Whether the run was finished, so that its figures are results, and on CIFAR-100."""
    provenance = bundle.provenance
    return bool(result_of(provenance)) and provenance["dataset"] != SYNTHETIC


def render_eval_results(bundle: Bundle, measured: Comparison | None) -> str:
    """Return top-1 as the Hub's `.eval_results/*.yaml`, for a network that `has_results`."""
    entry = EvalResultEntry(
        dataset_id=DATASET,
        task_id="cifar100",
        value=round(100 * _top1(bundle, measured), 2),
        notes=f"top-1 on all test images; weights of the "
        f"{bundle.provenance['metrics']['chosen_by']}; no test-time augmentation",
    )
    text: str = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
    return text


def _metadata(bundle: Bundle, repo: str, measured: Comparison | None) -> ModelCardData:
    """Return the front matter; only figures of a finished run on CIFAR-100 are results."""
    is_real = bundle.provenance["dataset"] != SYNTHETIC
    results = []
    if has_results(bundle):
        found = {**bundle.provenance["metrics"], "test/top1": _top1(bundle, measured)}
        results = [
            EvalResult(
                task_type="image-classification",
                dataset_type=DATASET,
                dataset_name=CIFAR100,
                dataset_split="test",
                metric_type="accuracy",
                metric_name=f"{name}, percent",
                metric_value=round(100 * found[key], 2),
            )
            for key, name in _METRICS.items()
        ]
    return ModelCardData(
        license="mit",
        pipeline_tag="image-classification",
        tags=[*(["cifar-100"] if is_real else []), "resnet", "onnx", "pytorch_model_hub_mixin"],
        datasets=[DATASET] if is_real else None,
        metrics=["accuracy"] if results else None,
        model_name=repo.split("/")[-1],
        eval_results=results or None,
    )


def _top1(bundle: Bundle, measured: Comparison | None) -> float:
    """Return test top-1: of these very weights where it was measured, else as the run says."""
    if measured:
        return measured.reference.top1
    return float(bundle.provenance["metrics"]["test/top1"])


def _results(bundle: Bundle, measured: Comparison | None) -> str:
    found, config = result_of(bundle.provenance), bundle.config
    if not found:
        return "This run was not finished, so there are no results.\n"
    split = f"{plain(bundle.provenance['dataset'])}, test images"
    rows = [("Top-1", f"**{_top1(bundle, measured):.2%}**", split)]
    rows += [("Top-5", f"**{found['test/top5']:.2%}**", split)]
    source = (
        "Top-1 is that of these files; the run itself ended with" if measured else "It ended with"
    )
    return (
        markdown_table(["Metric", "Value", "On"], rows)
        + f"\nOne run, seed {config.seed}; weights of the {plain(found['chosen_by'])}; no "
        f"test-time augmentation; the test images chose nothing. {source} "
        f"{found['test/top1']:.2%}.\n"
    )


def _answers(bundle: Bundle) -> str:
    """Return what stands below the examples: what the ONNX file does, and what it gives."""
    if bundle.calibration.class_means is None:
        rest = "Its probabilities are not calibrated, and `strangeness` is always 0."
    else:
        rest = (
            "Its probabilities are calibrated; `strangeness` says how unlike the training pictures "
            "a picture is."
        )
    return (
        f"\nThe ONNX file cuts the centre square and shrinks it to 32 x 32 pixels itself. {rest}\n"
    )


def _figures(folder: Path) -> str:
    images = [
        f"![{caption}](report/figures/{name}-light.png)\n\n"
        for name, caption in _FIGURES.items()
        if (folder / f"report/figures/{name}-light.png").is_file()
    ]
    if not images:
        return ""
    return f"## Report\n\n{''.join(images)}All of it: [report/report.md](report/report.md).\n"


def _training(bundle: Bundle, config: Config) -> str:
    stamp: Mapping[str, Any] = bundle.provenance["environment"]
    seconds = bundle.provenance["metrics"].get("train_seconds")
    count = config.train_size or 50_000 - config.val_size
    changed = ", with uncommitted changes" if stamp.get("uncommitted_changes") else ""
    teacher = {"Teacher": taught_by(stamp["teacher"])} if "teacher" in stamp else {}
    rows = {
        "Data": f"{plain(bundle.provenance['dataset'])}, {count:,} training images"
        if bundle.provenance["dataset"] != SYNTHETIC
        else "SYNTHETIC drawn shapes",
        "Held out to choose by": f"{config.val_size:,} others of the training set"
        if config.val_size
        else "nothing: the last epoch counts",
        "Recipe": f"{code(config.recipe)}, up to {config.epochs} epochs in batches of "
        f"{config.batch_size}, {plain(config.optimizer)}, seed {config.seed}",
        **teacher,
        "Time to these weights": duration(seconds) if seconds else "?",
        "On": f"{plain(' '.join(stamp.get('runtime') or [stamp.get('cpu', '?')]))} torch "
        f"{plain(stamp.get('torch', '?'))}.",
        "Command": code(stamp.get("command", "?")),
        "Commit of resnet_cifar100": commit(stamp) + changed,
        "Calibration": plain(bundle.calibration.source),
    }
    return markdown_table(["What", "Value"], list(rows.items()))


def _classes(bundle: Bundle) -> str:
    groups: dict[int, list[str]] = {}
    for name, group in zip(bundle.fine_names, bundle.fine_to_coarse, strict=True):
        groups.setdefault(group, []).append(plain(name.replace("_", " ")))
    rows = [
        (plain(bundle.coarse_names[group].replace("_", " ")), ", ".join(names))
        for group, names in sorted(groups.items())
    ]
    return markdown_table(["Superclass", "Classes"], rows)


_USAGE = """Without PyTorch, from the pixels of a picture of any size (`pip install onnxruntime
huggingface_hub pillow`):

```python
import json, numpy, onnxruntime
from huggingface_hub import hf_hub_download
from PIL import Image, ImageOps

network = onnxruntime.InferenceSession(hf_hub_download("{repo}", "model.onnx"))
picture = ImageOps.exif_transpose(Image.open("picture.jpg")).convert("RGB")
pixels = numpy.asarray(picture).transpose(2, 0, 1)[None]
(probs,) = network.run(["probs"], {{"images": pixels}})
names = json.loads(network.get_modelmeta().custom_metadata_map["description"])["fine_names"]
print(names[probs[0].argmax()], probs[0].max())
```

With PyTorch (`pip install torch numpy safetensors huggingface_hub`); the few files of Python that
it needs lie in this repository:

```python
import sys
from huggingface_hub import snapshot_download

sys.path.append(snapshot_download("{repo}", allow_patterns="*.py"))
from resnet_cifar100.export.pretrained import Classifier

network = Classifier.from_pretrained("{repo}")
logits = network(images)  # uint8 (N,3,32,32) -> float32 (N,K); network.names are the K classes
```
"""

_SYNTHETIC_LIMITS = """It knows shapes that a program drew, and nothing else. Nothing that it says
of a photograph means anything.
"""

_LIMITS = """It knows these classes and nothing else: it will name one of them whatever it is shown.
Each was learnt from a few hundred photographs of 32 x 32 pixels, collected from the web in 2008,
with the errors of their labels and their biases; the people among the classes (baby, boy, girl,
man, woman) above all. Noise, blur and low contrast easily mislead
such networks. It is a teaching model: nothing
should depend on it, least of all a decision about a person.
"""

_SOURCE = """Weights and code: MIT. CIFAR-100: Alex Krizhevsky, Learning Multiple Layers of Features
from Tiny Images, 2009, https://www.cs.toronto.edu/~kriz/cifar.html.
"""
