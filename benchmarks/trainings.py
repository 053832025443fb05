"""The experiments of each table, the most valuable first."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Experiment:
    """One row of a table: flags of train.py, how many seeds, and whose network teaches."""

    name: str
    flags: str
    seeds: int = 3
    teacher: str = ""  # the experiment whose seed 0 is the teacher


# The user's recipe at a budget for two CPU cores: a fifth of the images for a network with a fifth
# of the parameters, all 100 epochs, so that it overfits as the user's run did. Everything is chosen
# on 5,000 images held out. The first row is what the others are compared with.
_SMALL = "--recipe reference --model resnet8x4_s2 --train-size 10000 --val-size 5000"
_ABLATION = (
    Experiment("reference", _SMALL),
    Experiment("early stopping", f"{_SMALL} --early-stopping-patience 10"),
    Experiment("dropout 0.3", f"{_SMALL} --dropout 0.3"),
    Experiment("dropout 0.5", f"{_SMALL} --dropout 0.5"),
    Experiment("lower learning rate", f"{_SMALL} --lr 0.05"),
    Experiment("much lower learning rate", f"{_SMALL} --lr 0.01"),
    Experiment("cutout", f"{_SMALL} --augment cutout"),
    Experiment("mixup", f"{_SMALL} --augment mixup"),
    Experiment("cutmix", f"{_SMALL} --augment cutmix"),
    Experiment("trivial_augment", f"{_SMALL} --augment trivial_augment"),
    Experiment("label smoothing", f"{_SMALL} --label-smoothing 0.1"),
    Experiment("weight decay 1e-3", f"{_SMALL} --weight-decay 1e-3"),
    Experiment("ema", f"{_SMALL} --ema-decay 0.999 --ema-images 5000"),
    Experiment("asam", f"{_SMALL} --sam-rho 1 --sam-adaptive"),
)
_GPU = (
    Experiment("reference", "--recipe reference"),
    Experiment("strong", "--recipe strong"),
    Experiment("wrn_28_10", "--recipe strong --model wrn_28_10", seeds=1),
    Experiment("distilled", "--recipe distilled", teacher="wrn_28_10"),
)
_ZOO = tuple(
    Experiment(name, f"--recipe strong --model {name}", seeds=1)
    for name in (
        *("resnet20", "resnet20v2", "resnet32", "resnet32v2", "resnet56", "resnet56v2"),
        *("resnet110", "resnet110v2", "resnet44v2_slim", "resnet44v2", "wrn_16_4"),
        *("resnet18", "resnet34", "wrn_28_10"),
    )
)
TABLES = {"ablation": _ABLATION, "gpu": _GPU, "zoo": _ZOO}
