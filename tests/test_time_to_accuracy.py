"""The benchmark of whole trainings; how fast they are belongs to no test."""

import statistics

import pytest

from benchmarks import page
from benchmarks import time_to_accuracy as accuracy


def outcome(seed, top1, seconds):
    values = {"title": "CIFAR-100", "train_seconds": seconds, "warmup_seconds": 1.0}
    reached = seconds / 2 if top1 >= 0.75 else None
    return {"seed": seed, "top1": top1, "seconds_to_target": reached, **values}


def test_the_moment_of_the_target_counts_only_if_the_final_weights_have_it():
    epochs = [
        {"test/top1": top1, "train_seconds": seconds}
        for top1, seconds in [(0.5, 10.0), (0.751, 20.0), (0.749, 30.0), (0.76, 40.0)]
    ]
    assert accuracy.seconds_to_target(epochs, final=0.76) == 20.0
    assert accuracy.seconds_to_target(epochs, final=0.749) is None


def test_seeds_are_summed_up_with_mean_and_standard_deviation():
    seconds, top1 = [100.0, 102.0, 107.0], [0.74, 0.752, 0.756]
    rows = accuracy.rows([outcome(i, *o) for i, o in enumerate(zip(top1, seconds, strict=True))])
    assert rows[0] == ["0", "74.00%", "100.00", "1.00", "-"]
    mean, deviation = statistics.mean(seconds), statistics.stdev(seconds)
    assert rows[-1][0] == "mean of 3"
    assert rows[-1][2] == f"{mean:.2f} +- {deviation:.2f}"
    assert rows[-1][4].endswith("(2 of 3 seeds)")


def test_seeds_that_are_written_are_not_trained_again(tmp_path, monkeypatch, capsys):
    trained = []

    def train(config):
        trained.append(config.seed)
        return config.seed

    monkeypatch.setattr("resnet_cifar100.runtime.compile_fault", lambda _device: "no compiler")
    monkeypatch.setattr(accuracy, "train", train)
    monkeypatch.setattr(accuracy, "outcome", lambda seed: outcome(seed, 0.76, 100.0 + seed))
    makers = {page.WHOLE: accuracy.tables}
    key, changed = accuracy.key_of, {"uncommitted_changes": False}
    monkeypatch.setattr(accuracy, "key_of", lambda asked: key(asked) | changed)
    for seeds in ("2", "3", "1", "3"):  # of a table once measured nothing is lost
        page.main(makers, ["--seeds", seeds, "--recipe", "smoke", "--out", str(tmp_path)])
    assert trained == [0, 1, 2]
    before = (tmp_path / "result.json").read_bytes()
    for recipe in ("quick", "smoke"):
        with pytest.raises(SystemExit):
            page.main(makers, ["--seeds", "4", "--recipe", recipe, "--out", str(tmp_path)])
        assert "name another folder" in capsys.readouterr().err
        changed["uncommitted_changes"] = True
    assert trained == [0, 1, 2]
    assert (tmp_path / "result.json").read_bytes() == before


def test_flags_of_train_py_reach_the_trainings_and_no_other_benchmark(capsys):
    asked = page.Asked(
        **{"device": "cpu", "rounds": 1, "turn_seconds": 1.0, "precision": "fp32"},
        compile_fault="",
        training_flags=("--recipe", "quick", "--epochs", "2", "--width", "0.25", "--seed", "9"),
    )
    config = accuracy.settings_of(asked, seed=4)
    assert (config.recipe, config.epochs, config.width) == ("quick", 2, 0.25)
    assert (config.seed, config.warmup_epochs) == (4, 1.0)
    assert "--width 0.25" in accuracy.table_of(asked, page.WHOLE, {}, [outcome(4, 0.7, 1.0)]).how
    with pytest.raises(SystemExit) as refused:
        page.main({"loader": lambda _asked: iter(())}, ["--epochs", "2"])
    assert refused.value.code == 2
    assert "--epochs 2" in capsys.readouterr().err
