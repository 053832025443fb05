"""Learning from a larger network's answers besides the labels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from resnet_cifar100.bundle import Bundle, load_bundle
from resnet_cifar100.config import Config
from resnet_cifar100.description import result_of
from resnet_cifar100.engine.metrics import hard_labels
from resnet_cifar100.errors import ConfigError
from resnet_cifar100.models.layers import use_kernels
from resnet_cifar100.recipes import training_command
from resnet_cifar100.runtime import Runtime
from resnet_cifar100.storage import sha256_of

DKD_BETA = 8.0  # of the other classes in DKD: the authors' for the pair most like ours

_NEVER = -1000.0  # the logarithm of a probability that counts for nothing, and is a number


class Teacher:
    """A trained network, frozen, and what its answers add to the loss.

    `sha256` is that of its file; `description` says in words how it was made and what it reached.
    """

    def __init__(self, bundle: Bundle, sha256: str, config: Config, runtime: Runtime) -> None:
        self.sha256 = sha256
        self.description = _describe(bundle, sha256)
        bundle.to(runtime.device)
        if runtime.has_kernels:
            use_kernels(bundle.model, runtime.autocast_dtype, is_teacher=True)
        self.preprocess = bundle.preprocess
        self.forward = runtime.compile(bundle.model.requires_grad_(False))
        self.config = config

    def loss(self, images: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """Return how far logits (N,K) of uint8 images (N,3,H,W) are from the teacher's, ()."""
        with torch.no_grad():
            teacher_logits = self.forward(self.preprocess(images)).float()
        if self.config.distillation == "kd":
            return kd_loss(logits, teacher_logits, self.config.temperature)
        return dkd_loss(logits, teacher_logits, hard_labels(targets), self.config.temperature)


def check_teacher(config: Config) -> None:
    """Refuse what is wrong about --teacher without a look at it.

    Raises:
        ConfigError: for none where the recipe needs one, and for one that the run would overwrite.
    """
    if config.teacher is None:
        if config.recipe == "distilled":
            raise ConfigError("--recipe distilled needs --teacher, a best_model.pth to learn from")
    elif config.teacher.resolve() == config.checkpoint_path.resolve():
        raise ConfigError(
            "--teacher must be another file than --checkpoint-path, which is overwritten, "
            f"got {config.teacher}"
        )


def load_teacher(config: Config, runtime: Runtime, title: str) -> Teacher | None:
    """Return the teacher that the settings name, if they name one.

    Raises:
        CheckpointError: for a file that is not a network of this project.
        ConfigError: as `check_teacher`; for a teacher of other data, or one that has learned what
            is held out here.
    """
    check_teacher(config)
    if config.teacher is None:
        return None
    bundle = load_bundle(config.teacher)
    theirs = bundle.config
    if bundle.provenance["dataset"] != title:
        raise ConfigError(f"--teacher must be trained on {title}, as this run is")
    if config.val_size > theirs.val_size:
        raise ConfigError(
            f"--teacher must be trained with --val-size {config.val_size} or more, as this run is: "
            f"it has learned images that are held out here, got {theirs.val_size}"
        )
    return Teacher(bundle, sha256_of(config.teacher.read_bytes()), config, runtime)


def _describe(bundle: Bundle, sha256: str) -> str:
    found = result_of(bundle.provenance)
    result = f"{found['test/top1']:.2%} test top-1" if found else "not finished"
    command = training_command(bundle.config.without_folders())
    return f"{command}: {result}, SHA-256 {sha256}"


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return the mean divergence () of softened answers (N,K), times the temperature squared.

    Hinton et al. 2015, https://arxiv.org/abs/1503.02531.
    """
    ours = F.log_softmax(student_logits / temperature, dim=1)
    theirs = F.log_softmax(teacher_logits / temperature, dim=1)
    return _kl_divergence(ours, theirs) * temperature**2


def dkd_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float
) -> Tensor:
    """Return the decoupled distillation loss (): T^2 (TCKD + beta NCKD), with alpha = 1.

    Its parts compare the target with the rest (TCKD), and the other classes among themselves
    (NCKD): Zhao et al. 2022, https://arxiv.org/abs/2203.08679. What a teacher that is sure of the
    target thinks of the others would hardly count otherwise. The authors add it to the whole cross
    entropy, over the first 20 epochs by and by.
    """
    target = labels[:, None]
    is_target = torch.zeros_like(student_logits, dtype=torch.bool).scatter_(1, target, True)
    of_target, of_others = [], []
    for logits in (student_logits, teacher_logits):
        log_probs = F.log_softmax(logits / temperature, dim=1)
        rest = log_probs.masked_fill(is_target, _NEVER).logsumexp(1, keepdim=True)
        of_target.append(torch.cat([log_probs.gather(1, target), rest], dim=1))  # (N,2)
        of_others.append((log_probs - rest).masked_fill(is_target, _NEVER))  # (N,K)
    tckd, nckd = _kl_divergence(*of_target), _kl_divergence(*of_others)
    return (tckd + DKD_BETA * nckd) * temperature**2


def _kl_divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the mean Kullback-Leibler divergence of log-probabilities (N,K) from `theirs`."""
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
