"""What README and docs say, as far as a program can tell: figures, links, commands."""

import dataclasses
import json
import re
import shlex
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from resnet_cifar100.cli.train import training_settings
from resnet_cifar100.config import BEST_MODEL, ModelConfig
from resnet_cifar100.engine.record import load_record
from resnet_cifar100.errors import ProjectError
from resnet_cifar100.models.summary import summarize
from tests.conftest import REPOSITORY
from tests.test_architecture import LAYERS

README = (REPOSITORY / "README.md").read_text()


def records_of(text: str) -> list[Path]:
    """The folders of the records that a text links to."""
    places = re.findall(r"\]\((?:\.\./)?(records/[^)]+)/(?:README.md|run.json)\)", text)
    return [REPOSITORY / place for place in places]


def runs_of(row: str) -> list[Path]:
    """The folders of the runs that a row of the results links to; a table has none."""
    return [folder for folder in records_of(row) if (folder / "run.json").exists()]


ROWS = [row for row in README.splitlines() if row.startswith("| `") and runs_of(row)]
PAGES = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:50])
def test_the_readme_states_what_its_records_say(row):
    runs = list(map(load_record, runs_of(row)))
    top1 = [100 * run.result["test/top1"] for run in runs]
    stated, spread = re.search(r"(\d+\.\d\d)%(?:\*\*)?(?: ± (\d\.\d\d))?", row).groups()
    assert float(stated) == pytest.approx(statistics.mean(top1), abs=0.00501)
    if spread:
        assert float(spread) == pytest.approx(statistics.stdev(top1), abs=0.00501)
    time = row.split("|")[4]
    stated = [seconds_of(text) for text in re.findall(r"\d+:\d\d(?::\d\d)?", time)]
    measured = sorted(run.history.epochs[-1]["train_seconds"] for run in runs)
    assert stated[0] == pytest.approx(measured[0], abs=1)
    if "to" in time:
        assert stated[1] == pytest.approx(measured[-1], abs=1)
    for run in runs if "teacher" not in row else []:
        paths = {"checkpoint_path": BEST_MODEL, "log_file": Path("logs.md")}
        own = dataclasses.replace(run.config, seed=0, kernels=True, **paths)
        assert own == training_settings(shlex.split(f"--recipe {row.split('`')[1]}"))[0]


def test_the_readme_states_what_the_record_of_the_gpu_says():
    (row,) = (row for row in README.splitlines() if row.startswith("| ") and "H200" in row)
    (record,) = records_of(row)
    content = json.loads((record / "result.json").read_text())
    outcomes = content["time_to_accuracy"]["samples"]["outcomes"]
    assert len(outcomes) == 6
    assert "[six]" in row
    for key, unit, text in (
        ("top1", 100, "{:.2f}% ± {:.2f}"),
        ("train_seconds", 1, "{:.2f} ± {:.2f} s"),
    ):
        values = [unit * outcome[key] for outcome in outcomes]
        assert text.format(statistics.mean(values), statistics.stdev(values)) in row


def test_every_row_of_the_faults_is_in_their_record():
    text = (REPOSITORY / "docs/reliability.md").read_text().split("## Figures")[1]
    record, *_earlier = records_of(text)
    rows = re.findall(r"^\| (.*?) \| (.*?) \|$", text.split("## ")[0], re.MULTILINE)
    assert dict(rows[2:]) == json.loads((record / "result.json").read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_trains_has_flags_that_there_are(page, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.replace("$seed", "0").removesuffix(" || break")
            words = shlex.split(command, comments=True)
            if "train.py" in words and ("--resume" not in words or "--run-dir" in words):
                training_settings(words[words.index("train.py") + 1 :])


def test_the_loop_over_seeds_ends_with_a_training_that_was_stopped():
    (loop,) = re.findall(
        r"^for seed .*?^done$", (REPOSITORY / "docs/training.md").read_text(), re.DOTALL | re.M
    )
    stopped = f"python() {{ echo trained; return 130; }}\n{loop}"
    done = subprocess.run(["bash", "-c", stopped], capture_output=True, text=True, check=False)
    assert done.stdout == "trained\n"


RESULTS = (REPOSITORY / "docs/results.md").read_text().split("\n## Accuracy\n")[1].split("\n## ")[0]
MEASURED = [row for row in RESULTS.splitlines() if row.startswith("|") and runs_of(row)]


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: row[2:60])
def test_the_results_state_what_their_records_say(row):
    runs = list(map(load_record, runs_of(row)))
    _, _, _, top1, top5, time, speed, _, seeds, _, _ = map(str.strip, row.split("|"))
    each = [f"{100 * run.result['test/top1']:.2f}" for run in runs]
    mean = statistics.mean(100 * run.result["test/top1"] for run in runs)
    assert f"{mean:.2f}%" in top1.replace("**", "")
    assert int(seeds) == len(runs)
    if len(runs) > 1:
        assert f"({', '.join(each)})" in top1
    assert top5 == f"{statistics.mean(100 * run.result['test/top5'] for run in runs):.2f}%"
    seconds = [run.history.epochs[-1]["train_seconds"] for run in runs]
    stated = [seconds_of(text) for text in re.findall(r"\d+:\d\d(?::\d\d)?", time)]
    assert any(abs(stated[0] - own) <= 1 for own in seconds)
    for number, run, own in zip(speed.split(", "), runs, seconds, strict=True):
        images = run.config.epochs * run.steps_per_epoch * run.config.batch_size
        assert number == f"{images / own:,.0f}"


def seconds_of(text: str) -> int:
    """Return the seconds that "8:43" or "1:08:32" are."""
    return sum(int(part) * 60**power for power, part in enumerate(reversed(text.split(":"))))


def test_the_readme_has_the_table_of_the_documented_network():
    summary = summarize(ModelConfig())
    for part in summary.parts[:5]:  # README takes the last norm and the head together
        (row,) = (row for row in README.splitlines() if row.startswith(f"| {part.name} | "))
        _, layers, shape, parameters, multiply_adds = map(str.strip, row[1:-1].split("|"))
        assert layers.startswith(part.layers) or part.name == "stem"
        assert shape == " x ".join(map(str, part.shape))
        assert int(parameters.replace(",", "")) == part.parameters
        assert multiply_adds == f"{part.multiply_adds / 1e6:.2f} M"
    assert f"**{summary.parameters:,}** | {summary.multiply_adds / 1e6:.2f} M" in README


ARCHITECTURE = (REPOSITORY / "docs/architecture.md").read_text()


def test_the_map_of_the_package_is_the_one_that_imports_follow():
    table = ARCHITECTURE.split("## Layers")[1].split("## ")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    named = [tuple(re.findall(r"`([a-z]+)(?:\.py|/)`", row)) for row in rows]
    assert sum(named, ()) == tuple(name for layer in LAYERS for name in layer)


def test_every_exit_code_has_its_row():
    table = ARCHITECTURE.split("## Exit codes")[1].split("## ")[0]
    stated = {int(code) for code in re.findall(r"^\| (\d+)", table, re.MULTILINE)}
    raised = {
        error.exit_code for error in ProjectError.__subclasses__() if "exit_code" in vars(error)
    }
    assert stated == {0, 1, 8, 130, *raised}


BY_MACHINE = {
    table.split()[1]: table
    for table in re.findall(
        r"^\|.*\]\(\.\./records/.*\n\|--.*(?:\n\|.*)+",
        (REPOSITORY / "docs/results.md").read_text(),
        re.MULTILINE,
    )
}


def measured_by_machine(table: str) -> Iterator[tuple[str, str, dict]]:
    """Yield label and text of each cell, with what the record of its column has measured."""
    title, _, *rows = table.splitlines()
    contents = [json.loads((one / "result.json").read_text()) for one in records_of(title)]
    for row in rows:
        label, *cells = map(str.strip, row.replace("`", "").split("|")[1:-1])
        yield from ((label, *pair) for pair in zip(cells, contents, strict=True))


@pytest.mark.parametrize(
    ("title", "key"),
    [
        ("matrix", "train_step_matrix"),
        ("step", "train_step_resnet44v2"),
        ("all", "train_step_speednet_run"),
    ],
)
def test_the_speeds_of_all_machines_are_in_their_records(title, key):
    for label, cell, content in measured_by_machine(BY_MACHINE[title]):
        rows = content[key]["rows"]
        if not label.startswith(("the fastest", "its share", "as the recipe")):
            step = label.removesuffix(", images/s")
            rows = [row for row in rows if {step, f"ours, {step}"} & {*row}]
        assert any(cell in row for row in rows) if cell else not rows


def test_the_hours_of_the_reference_recipe_follow_from_their_records():
    for label, cell, content in measured_by_machine(BY_MACHINE["100"]):
        reference, fast = (
            {row[0].removeprefix("ours, "): float(row[1].replace(",", "")) for row in table["rows"]}
            for table in (content[f"train_step_{name}_run"] for name in ("resnet44v2", "speednet"))
        )
        precision = "bf16" if "eager, bf16" in fast else "fp32"
        seconds = reference[f"compiled, {precision}" if "--recipe" in label else label]
        times = seconds / fast[f"eager, {precision}"]
        assert cell == f"{seconds / 3600:.1f} h, {times:.0f} times"
