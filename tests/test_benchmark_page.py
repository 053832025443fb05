"""What a benchmark leaves behind, whatever becomes of it."""

import json

import pytest

from benchmarks import page

pytestmark = pytest.mark.usefixtures("no_compiler")


def test_a_later_call_replaces_its_own_tables_alone(tmp_path):
    def table(name, value):
        return page.Table(name, name.title(), "How.", ["A"], [[value]], {"seconds": [1.5, 2.0]})

    makers = {
        "first": lambda _asked: iter([table("first", "old")]),
        "second": lambda _asked: iter([table("second", "kept")]),
    }
    page.main(makers, ["--out", str(tmp_path)])
    makers["first"] = lambda _asked: iter([table("first", "new")])
    page.main(makers, ["--out", str(tmp_path), "--only", "first"])
    text = (tmp_path / "README.md").read_text()
    assert "| new |" in text
    assert "| kept |" in text
    assert "| old |" not in text
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["second"]["samples"] == {"seconds": [1.5, 2.0]}
    assert "[ 1.5, 2.0 ]" in (tmp_path / "result.json").read_text()
    assert content["first"]["environment"]["command"].startswith("python")


def test_a_benchmark_that_fails_does_not_keep_the_others_from_being_made(tmp_path, capsys):
    def broken(_asked):
        raise RuntimeError("out of luck")

    table = page.Table("second", "Second", "How.", ["A"], [["made"]], {})
    makers = {"first": broken, "second": lambda _asked: iter([table])}
    with pytest.raises(SystemExit) as ended:
        page.main(makers, ["--out", str(tmp_path)])
    assert ended.value.code == 1
    assert "| made |" in (tmp_path / "README.md").read_text()
    shown = capsys.readouterr()
    assert "out of luck" in shown.err
    assert "--only first" in shown.out
