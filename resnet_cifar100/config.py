"""Every setting of a run, in one frozen dataclass that is checked when it is made.

Flat, because the command line is flat (`--epochs 30 --lr 0.05`) and so is the JSON file that each
run keeps.
"""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from resnet_cifar100.constants import ARCHIVE_URL, IMAGE_SIZE, NUM_CLASSES
from resnet_cifar100.errors import ConfigError
from resnet_cifar100.limits import limits_of

BEST_MODEL = Path("checkpoints/best_model.pth")
SHIPPED_MODEL = Path("weights/fast.safetensors")
SAMPLES = Path("test_data_setup/cifar100_test_images")
# Settings that do not change what is trained: on what and how long, where things lie, how often.
HOUSEKEEPING = frozenset(
    {
        *("device", "num_threads", "data_dir", "data_url", "checkpoint_path", "log_file"),
        *("tensorboard", "checkpoint_minutes", "keep_checkpoints", "log_steps", "max_hours"),
        "kernels",  # as the machine, it may change how numbers are rounded
    }
)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What it takes to build a network again; travels with its weights."""

    name: str = "resnet44v2"
    width: float = 1.0
    dropout: float = 0.1
    image_size: int = IMAGE_SIZE
    num_classes: int = NUM_CLASSES
    squeeze_excitation: bool = False
    stochastic_depth: float = 0.0
    zero_init: bool = False


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one training run."""

    recipe: str = "reference"
    """Named set of defaults for everything below; README lists them. Without it quick, or reference
    with a CUDA GPU. --help shows the defaults of reference, or of the recipe named beside it."""

    model: str = "resnet44v2"
    """Network by name; `python -m resnet_cifar100 info` lists them."""
    width: float = 1.0
    """Multiplies the channels of every stage, rounded to a multiple of 16; 0.25 to 8."""
    dropout: float = 0.1
    """Share of the pooled features dropped before the last layer, in [0, 1)."""
    stochastic_depth: float = 0.0
    """Share of the images that skip the last residual block, in [0, 1); earlier blocks less."""
    squeeze_excitation: bool = False
    """Let each residual block weigh its channels by their means over the image."""
    zero_init: bool = False
    """Start each residual block as the identity."""
    image_size: int = IMAGE_SIZE
    """Side in pixels that the network trains and predicts at, 8 to 32; smaller is faster."""
    early_sizes: tuple[int, ...] = ()
    """Smaller sides to train at first, one after another (for example 20 24); none by default."""
    early_shares: tuple[float, ...] = ()
    """Share of all steps after which each of the early sizes ends (for example 0.15 0.5)."""

    dataset: Literal["auto", "cifar100", "synthetic"] = "cifar100"
    """auto is CIFAR-100 where it can be had, else drawn pictures, labelled SYNTHETIC throughout."""
    data_dir: Path = Path("data")
    """Folder that holds (or will hold) cifar-100-python; $CIFAR100_DIR is tried next."""
    data_url: str = ARCHIVE_URL
    """Where to download the official archive from; checksums are verified whatever the source."""
    val_size: int = 0
    """Training images held out to choose the best weights, a multiple of 100; 0 trains on all."""
    train_size: int = 0
    """Use only this many training images (class-balanced), for quick experiments; 0 uses all."""
    crop_padding: int = 4
    """Pixels of padding around an image before a random crop, 0 to 16."""
    crop_fill: Literal["zeros", "reflect"] = "zeros"
    """What the padding is made of: black pixels, or the image mirrored at its edge."""
    flip: bool = True
    """Mirror each training image with probability one half."""
    alternating_flip: bool = False
    """Draw the mirrored half once, then swap the halves every epoch, instead of drawing anew."""
    augment: tuple[str, ...] = ()
    """More augmentation, in the order named, of cutout random_erasing rotation color_jitter
    trivial_augment rand_augment; then one of mixup and cutmix a batch. "cutout:16": a strength."""
    plain_epochs: int = 0
    """Last epochs of the run, without --augment."""

    batch_size: int = 128
    """Images per step."""
    epochs: int = 100
    """Passes over the training images."""
    optimizer: Literal["sgd", "muon"] = "sgd"
    """sgd for every parameter; or muon for the filters of convolutions, and sgd for the rest."""
    muon_lr: float = 0.18
    """Peak learning rate of Muon."""
    muon_momentum: float = 0.6
    """Nesterov momentum of Muon, in [0, 1)."""
    lr: float = 0.1
    """Peak learning rate of SGD."""
    momentum: float = 0.9
    """Momentum of SGD, in [0, 1)."""
    nesterov: bool = False
    """Use Nesterov momentum."""
    weight_decay: float = 5e-4
    """L2 penalty of SGD."""
    decay_norms: bool = True
    """Put the L2 penalty on the weights of norms and on biases too."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate goes from its peak to zero, or stays."""
    warmup_epochs: float = 0.0
    """Epochs over which the learning rate rises linearly to its peak."""
    label_smoothing: float = 0.0
    """Share of each label spread over all classes, in [0, 1)."""
    grad_clip_norm: float = 0.0
    """Largest allowed norm of the whole gradient; 0 does not clip."""
    sam_rho: float = 0.0
    """Radius of sharpness-aware minimisation, which doubles the cost of a step; 0 turns it off."""
    sam_adaptive: bool = False
    """Measure that radius in units of each weight (ASAM); use one about 10 times larger then."""
    ema_decay: float = 0.0
    """Decay per step of an exponential moving average of the weights, in [0, 1); 0 keeps none."""
    ema_images: int = 0
    """Training images used each epoch to compute batch-norm statistics for that average; 0 averages
    the statistics too."""
    teacher: Path | None = None
    """A best_model.pth to learn from besides the labels."""
    distillation: Literal["kd", "dkd"] = "dkd"
    """kd matches the teacher's outputs; dkd weights the target and the other classes separately."""
    distillation_weight: float = 0.5
    """The teacher's share of the loss, in (0, 1]."""
    temperature: float = 4.0
    """Divides the logits of teacher and student before they are compared."""
    early_stopping_patience: int = 0
    """Stop after this many epochs without a better val top-1 (needs --val-size); 0 never stops."""
    seed: int = 0
    """Seed of the initial weights, the order of images, augmentation and dropout."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the forward pass; auto is bf16 where the hardware multiplies it, else fp32."""
    compile: bool = False
    """Compile the network with torch.compile (needs a C++ compiler on a CPU)."""
    kernels: bool = True
    """On a CPU, train with kernels of this project where they are faster than the library's; they
    are compiled at the first start (needs g++ and a processor with AVX2)."""
    sync_norms: bool = False
    """Let the norms of several processes, each on its GPU, see all their batches as one."""
    num_threads: int = 0
    """CPU threads; 0 leaves it to torch."""

    checkpoint_path: Path = BEST_MODEL
    """Where the best model goes. Folders of training state, one a run, stand beside it."""
    log_file: Path = Path("logs.md")
    """Live Markdown log of the run."""
    checkpoint_minutes: float = 5.0
    """Save the training state at least this often inside an epoch. It is also saved after each
    epoch, but at most once in ten seconds, and with each best model on held-out images."""
    max_hours: float = 0.0
    """Stop with the state saved (exit code 8, under torchrun 0) before this session lasts so long,
    not counting the time to fetch the data set; 0: no limit."""
    keep_checkpoints: int = 2
    """How many of the newest training states to keep."""
    log_steps: int = 20
    """Steps between two points of the loss curve."""
    tensorboard: bool = False
    """Also write TensorBoard event files into the run's folder (pip install tensorboard)."""

    def __post_init__(self) -> None:
        """Refuse what could only fail later.

        Raises:
            ConfigError: naming the field, its value and the allowed range.
        """
        for field in dataclasses.fields(self):
            if get_origin(field.type) is Literal:
                choices = get_args(field.type)
                is_known = getattr(self, field.name) in choices
                self._check(field.name, is_known, f"one of {', '.join(choices)}")
        for name, is_valid, allowed in limits_of(self):
            self._check(name, is_valid, allowed)

    def _check(self, field: str, is_valid: bool, allowed: str) -> None:
        if not is_valid:
            flag = field.replace("_", "-")
            raise ConfigError(f"--{flag} must be {allowed}, got {getattr(self, field)}")

    @property
    def model_config(self) -> ModelConfig:
        """The part of the settings that describes the network."""
        return ModelConfig(
            name=self.model,
            width=self.width,
            dropout=self.dropout,
            image_size=self.image_size,
            squeeze_excitation=self.squeeze_excitation,
            stochastic_depth=self.stochastic_depth,
            zero_init=self.zero_init,
        )

    @property
    def image_sizes(self) -> tuple[int, ...]:
        """Every side in pixels that the network trains at, in order."""
        return (*self.early_sizes, self.image_size)

    def differing(self, other: "Config") -> list[str]:
        """Return the names of the settings that differ and say what is trained."""
        return [
            field.name
            for field in dataclasses.fields(self)
            if field.name not in HOUSEKEEPING
            and getattr(self, field.name) != getattr(other, field.name)
        ]

    def without_folders(self) -> "Config":
        """Return what may be shown: names for absolute paths, and an address without secrets."""
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        names: dict[str, Any] = {
            name: Path(value.name)
            for name, value in values
            if isinstance(value, Path) and value.is_absolute()
        }
        names["data_url"] = without_secrets(self.data_url)
        return dataclasses.replace(self, **names)

    def to_json(self) -> str:
        """Return the settings as JSON text; paths become strings."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Return the settings that `to_json` wrote.

        Raises:
            ConfigError: for text that is not JSON, an unknown key, or a value outside its range.
        """
        try:
            values: dict[str, Any] = dict(json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            raise ConfigError(f"the settings are not a JSON object: {error}") from error
        # Until there were norms among them "kernels" was "winograd"; earlier runs had none.
        values.setdefault("kernels", values.pop("winograd", False))
        fields = {field.name: field for field in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - fields.keys()):
            raise ConfigError(f"unknown settings: {', '.join(unknown)}")
        try:
            for name, value in values.items():
                if fields[name].type is Path or (fields[name].type == Path | None and value):
                    values[name] = Path(value)
                elif get_origin(kind := fields[name].type) is tuple:
                    if not all(_is_a(get_args(kind)[0], one) for one in list(value)):
                        raise TypeError(f"{name} is {value}")
                    values[name] = tuple(value)
                elif kind in (bool, int, float, str) and not _is_a(kind, value):
                    raise TypeError(f"{name} is {value}")
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"a setting has a value of the wrong type: {error}") from error


def _is_a(kind: type, value: object) -> bool:
    """Whether a value of JSON is what Python takes for `kind`: 1 is a float too, true no number."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def without_secrets(text: str) -> str:
    """Return an address, or any other words, without user, password and query: it may be signed."""
    return re.sub(r"//(?:[^/]*@)?([^?\s]*)(?:\?\S*)?", r"//\1", text)
