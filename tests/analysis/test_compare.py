import dataclasses
import json
import re
from pathlib import Path

import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from resnet_cifar100.analysis.compare import cautions, compare, group_rows, write_comparison
from resnet_cifar100.analysis.figures import comparison_size, draw_comparison, draw_top1
from resnet_cifar100.analysis.groups import Group, Run, differing_settings, group_runs
from resnet_cifar100.analysis.significance import holm, p_value
from resnet_cifar100.cli import main
from resnet_cifar100.engine.record import load_record
from resnet_cifar100.markdown import duration
from tests.conftest import REPOSITORY

RECORDS = REPOSITORY / "records"
FAST = sorted(RECORDS.glob("*_fast-seed*"))
QUICK = sorted(RECORDS.glob("*_quick-fast-seed*"))
hits = st.lists(st.integers(1000, 9000), min_size=2, max_size=6)


@settings(max_examples=100, deadline=None)
@given(hits, hits)
@pytest.mark.filterwarnings("ignore:Precision loss")  # scipy, where one of the two does not vary
def test_the_p_value_is_that_of_welchs_test(first, second):
    assume(len(set(first)) > 1 or len(set(second)) > 1)
    expected = scipy.stats.ttest_ind(first, second, equal_var=False).pvalue
    assert p_value(first, second) == pytest.approx(expected, abs=1e-6)


def test_without_variation_nothing_is_said_of_chance():
    assert p_value([0.5, 0.5], [0.6, 0.6]) is None
    assert p_value([0.5], [0.6, 0.7]) is None


def test_the_lowest_of_several_counts_as_often_as_there_are_and_none_overtakes():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def runs_of(folders):
    return [Run(folder, load_record(folder)) for folder in folders]


def test_runs_that_differ_in_their_seeds_alone_are_one_group():
    groups = group_runs(runs_of([*FAST, *QUICK]))
    assert [group.title for group in groups] == ["A: recipe fast", "B: recipe quick"]
    assert [len(group.runs) for group in groups] == [3, 3]
    assert groups[0].top1 == [0.7591, 0.76, 0.7585]


def test_a_group_is_named_by_how_it_differs_from_the_first():
    first, second, third = runs_of(FAST)
    second.record.config = dataclasses.replace(second.record.config, weight_decay=0.1)
    third.record.config = dataclasses.replace(third.record.config, dropout=0.2, weight_decay=0.1)
    names = [group.title for group in group_runs([first, second, third])]
    assert names == [
        "A: dropout 0.0, weight_decay 0.0005",
        "B: weight_decay 0.1",
        "C: dropout 0.2, weight_decay 0.1",
    ]
    records = [first.record, second.record]
    assert differing_settings(records) == ["weight_decay"]


def test_a_comparison_is_written_as_page_and_facts(tmp_path):
    assert main(["compare", *map(str, [*FAST, *QUICK]), "--out", str(tmp_path)]) == 0
    facts = json.loads((tmp_path / "compare.json").read_text())
    assert facts[0]["test_top1"] == [0.7591, 0.76, 0.7585]
    assert facts[0]["mean"] == pytest.approx(0.7592)
    assert facts[1]["p_against_first"] < 1e-4
    assert facts[1]["p_holm"] == facts[1]["p_against_first"]  # the only comparison
    assert facts[0]["p_holm"] is None
    assert facts[0]["val_top1"] == []
    page = (tmp_path / "report.md").read_text()
    assert "75.92% +- 0.08" in page
    assert all(f"| records/{folder.name} |" in page for folder in [*FAST, *QUICK])
    html = (tmp_path / "report.html").read_text()
    sources = re.findall(r'(?:src|srcset|href)="([^"#][^"]*)"', html)
    assert len(sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def group(letter: str, *figures: float) -> Group:
    """Return a group of runs with these figures, of seeds 0, 1 and so on."""
    record, runs = load_record(FAST[0]), []
    for seed, top1 in enumerate(figures):
        config = dataclasses.replace(record.config, seed=seed)
        result = {"test/top1": top1}
        runs.append(Run(Path(letter), dataclasses.replace(record, config=config, result=result)))
    return Group(letter, letter, tuple(runs))


def test_a_single_comparison_needs_no_correction_and_several_are_corrected():
    first, second = group("A", 0.70, 0.71, 0.72), group("B", 0.73, 0.74, 0.75)
    third = group("C", 0.60, 0.61, 0.62)
    (_, alone) = group_rows([first, second])
    assert (alone["p"], alone["p, Holm"]) == ("0.021", "")
    _, among, lower = group_rows([first, second, third])
    assert (among["p"], among["p, Holm"]) == ("0.021", "0.021")
    assert float(lower["p, Holm"]) == pytest.approx(2 * float(lower["p"]), rel=0.1)


def test_the_facts_have_the_corrected_p_of_several_comparisons(tmp_path):
    groups = [group("A", 0.70, 0.71, 0.72), group("B", 0.73, 0.74, 0.75), group("C", 0.7, 0.8)]
    write_comparison(groups, tmp_path)
    _, *others = json.loads((tmp_path / "compare.json").read_text())
    expected = holm([one["p_against_first"] for one in others])
    assert [one["p_holm"] for one in others] == expected
    assert others[0]["p_holm"] > others[0]["p_against_first"]


def test_top1_on_held_out_images_is_shown_where_runs_held_some_out(tmp_path):
    held_out, plain = RECORDS / "2026-11-23_fast-held-out", FAST[0]
    groups, _ = compare([held_out, plain], tmp_path)
    best = max(load_record(held_out).history.held_out_top1)
    assert [row["Val top-1, highest"] for row in group_rows(groups)] == [f"{best:.2%}", ""]
    facts = json.loads((tmp_path / "compare.json").read_text())
    assert [one["val_top1"] for one in facts] == [[best], []]


def test_an_unfinished_run_is_shown_and_does_not_count(tmp_path):
    record = load_record(FAST[0])
    record.result, record.status = None, "interrupted: by a test"
    record.history.epochs = record.history.epochs[:5]
    record.save(tmp_path / "half")
    groups, _ = compare([tmp_path / "half", *FAST[1:], QUICK[0]], tmp_path / "out")
    assert groups[0].top1 == [0.76, 0.7585]
    facts = json.loads((tmp_path / "out/compare.json").read_text())
    assert facts[0]["seeds"] == [1, 2]
    assert group_rows(groups)[0]["Runs"] == "2"
    seconds = [run.record.history.train_seconds for run in groups[0].counted]
    assert group_rows(groups)[0]["Time"] == duration(sum(seconds) / 2)
    page = (tmp_path / "out/report.md").read_text()
    assert "interrupted: by a test" in page
    assert "A: 1 not finished, which do not count." in page


def test_the_top1_of_each_run_is_a_dot_in_the_row_of_its_group():
    figure = Figure()
    draw_top1(figure, [("A", [0.5, 0.7]), ("B: not finished", []), ("C", [0.8])])
    (axes,) = figure.axes
    drawn = [(line.get_marker(), *map(list, line.get_data())) for line in axes.lines]
    assert [(xs, ys) for marker, xs, ys in drawn if marker == "o"] == [
        (pytest.approx([50, 70]), [0, 0]),
        ([], []),
        (pytest.approx([80]), [2]),
    ]
    assert [(xs, ys) for marker, xs, ys in drawn if marker == "|"] == [
        (pytest.approx([60]), [0]),
        (pytest.approx([80]), [2]),
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["A", "B: not finished", "C"]


@pytest.mark.parametrize(("count", "panels", "lines"), [(8, 2, 8), (9, 9, 2)])
def test_more_groups_than_lines_can_show_get_a_panel_each_beside_the_first(count, panels, lines):
    fast, quick = load_record(FAST[0]), load_record(QUICK[0])
    figure = Figure(figsize=comparison_size(count))
    groups = [("A", [fast]), *((f"group {index}", [quick]) for index in range(1, count))]
    draw_comparison(figure, groups)
    assert len(figure.axes) == panels
    last = figure.axes[-1].lines
    assert len(last) == lines
    shown = [max(line.get_ydata()) for line in (last[0], last[-1])]
    assert shown == [pytest.approx(100 * max(run.history.held_out_top1)) for run in (fast, quick)]


def test_of_runs_with_one_seed_the_first_counts_and_the_others_are_named(tmp_path, capsys):
    again = RECORDS / "2026-11-23_fast-held-out-calibration"
    runs = [str(RECORDS / "2026-11-23_fast-held-out"), str(again)]
    assert main(["compare", *runs, "--out", str(tmp_path)]) == 0
    caution = f"A: records/{again.name} is left out: seed 0 has a run already."
    assert caution in capsys.readouterr().out.replace("\n", " ")
    page = (tmp_path / "report.md").read_text()
    assert caution in page
    assert "differ in their commit" in page
    (facts,) = json.loads((tmp_path / "compare.json").read_text())
    assert (facts["runs"], facts["seeds"]) == (runs[:1], [0])


def test_a_seed_trained_again_changes_no_figure():
    runs = runs_of([*FAST, *QUICK])
    copies = [Run(Path(f"{run.folder}_2"), run.record) for run in runs]
    assert group_rows(group_runs([*runs, *copies])) == group_rows(group_runs(runs))
    unfinished = dataclasses.replace(runs[0].record, result=None)
    stopped_first = [Run(Path("stopped"), unfinished), *runs]
    assert group_rows(group_runs(stopped_first)) == group_rows(group_runs(runs))


def test_groups_never_share_a_name():
    groups = group_runs(runs_of(sorted(path.parent for path in RECORDS.glob("*/run.json"))))
    names = [group.name for group in groups]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("folders", "code", "sentence"),
    [
        ([], 3, "name at least two folders of runs"),
        ([FAST[0]], 3, "name at least two folders of runs"),
        ([FAST[0], FAST[0]], 3, "are the same run"),
        ([FAST[0], REPOSITORY / "docs"], 4, "fewer than two runs to compare: "),
        ([FAST[0], RECORDS / "2026-11-23_quick-SYNTHETIC"], 3, "one on SYNTHETIC: their figures"),
    ],
)
def test_what_cannot_be_compared_gets_a_sentence(folders, code, sentence, tmp_path, capsys):
    assert main(["compare", *map(str, folders), "--out", str(tmp_path / "out")]) == code
    fault = capsys.readouterr().err
    assert sentence in fault
    assert fault.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_folders_without_a_finished_epoch_are_left_out_and_named(tmp_path, capsys):
    record = load_record(FAST[0])
    record.history.epochs = []
    begun, locked, out = (tmp_path / name for name in ("a_begun", "b_locked", "out"))
    record.save(begun)
    locked.mkdir()
    (locked / ".lock").touch()
    assert main(["compare", str(begun), *map(str, FAST), str(locked), "--out", str(out)]) == 0
    said, page = " ".join(capsys.readouterr().out.split()), (out / "report.md").read_text()
    for folder, fault in [(begun, "has no finished epoch"), (locked, "does not hold the record")]:
        caution = f"Left out: {tmp_path.name}/{folder.name} {fault}"
        assert caution in said
        assert caution in page
    (facts,) = json.loads((out / "compare.json").read_text())
    assert facts["runs"] == list(map(str, FAST))
    assert main(["compare", str(begun), str(FAST[1]), str(locked)]) == 4
    assert "a_begun has no finished epoch, " in capsys.readouterr().err


def test_runs_that_learned_from_other_teachers_are_not_seeds_of_one_experiment():
    runs = runs_of([RECORDS / "2026-11-28_resnet44v2-teacher-seed0"] * 3)
    for seed, (run, letter) in enumerate(zip(runs, "aba", strict=True)):
        run.record.config = dataclasses.replace(run.record.config, seed=seed)
        run.record.environments = [{"teacher": f"python train.py: 78%, SHA-256 {12 * letter}"}]
    runs[2].record.config = dataclasses.replace(runs[2].record.config, teacher=Path("moved.pth"))
    groups = group_runs(runs)
    assert [[run.record.config.seed for run in group.runs] for group in groups] == [[0, 2], [1]]
    assert groups[1].name == "teacher SHA-256 bbbbbbbbbb"


def test_a_run_that_was_resumed_with_other_settings_is_named():
    groups = group_runs(runs_of(FAST))
    before = cautions(groups)
    environments = groups[0].runs[1].record.environments
    environments.append({**environments[0], "changes": ["epochs 6 -> 12"]})
    (caution,) = {*cautions(groups)} - {*before}
    assert caution.startswith(f"A: records/{FAST[1].name} was resumed with other settings")


def test_code_that_changed_on_the_way_is_pointed_out():
    groups = group_runs(runs_of([FAST[0], QUICK[0]]))
    record, other = (group.runs[0].record for group in groups)
    record.environments = other.environments
    assert cautions(groups) == []
    record.environments = [{**other.environments[0], "commit": "x"}, *other.environments]
    assert cautions(groups) == ["The runs differ in their commit."]
    record.environments[0]["uncommitted_changes"] = True
    assert "The code of some runs had uncommitted changes." in cautions(groups)


@pytest.mark.parametrize(
    ("facts", "is_said"),
    [({}, False), ({"commit": "x"}, True), ({"uncommitted_changes": True}, True)],
    ids=str,
)
def test_other_code_that_counts_as_one_experiment_is_pointed_out(facts, is_said):
    (group,) = group_runs(runs_of(FAST))
    for run in group.runs:
        run.record.environments = [{"commit": "a", "uncommitted_changes": False}]
    group.runs[-1].record.environments[0] |= facts
    lines = cautions([group, dataclasses.replace(group, letter="B")])
    said = [line for line in lines if "count as one experiment" in line]
    assert [line[:6] for line in said] == ["A, B: "] * is_said  # once for both


@pytest.mark.parametrize(
    ("facts", "key"),
    [
        ({"threads": 64}, "threads"),
        ({"processes": 2}, "processes"),
        ({"processes": 1}, None),  # as many as the older record does not name
    ],
    ids=str,
)
def test_other_numbers_of_threads_and_processes_are_pointed_out(facts, key):
    groups = group_runs(runs_of([FAST[0], QUICK[0]]))
    record, other = (group.runs[0].record for group in groups)
    record.environments = [{**other.environments[0], **facts}]
    assert cautions(groups) == ([f"The runs differ in their {key}."] if key else [])
