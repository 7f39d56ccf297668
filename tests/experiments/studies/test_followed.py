"""Measures over the steps: rows written once, the paper's schedule, rates at its size."""

import json
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest

from jsws_lib.engine.resume import read_log
from jsws_lib.experiments.studies import followed, paper_schedule, paper_size
from jsws_lib.training import learning_rate


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("JSWS_RUNS", str(tmp_path / "runs"))


def test_rows_are_added_and_shown_with_the_spread_over_seeds(tmp_path):
    file = tmp_path / "rows.json"
    assert followed.known(file) == []
    for seed, end in enumerate((0.25, 0.75)):
        row = {"rate": "1/k", "seed": seed}
        rows = ({**row, "step": 0, "miou": 0.0}, {**row, "step": 1000, "miou": end})
        followed.append(file, *rows, words="how")
    stored = json.loads(file.read_text())
    assert stored["words"] == "how" and stored["versions"]["torch"]
    assert stored["rows"] == followed.known(file) and len(stored["rows"]) == 4
    line = followed.table(stored["rows"], "rate", {"miou": "mIoU"}).splitlines()[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["1/k", "2", "1,000", "0.000 → 0.500"]
    (ax,) = followed.chart(stored["rows"], "rate", {"miou": "mIoU"}).axes
    assert ax.lines[0].get_ydata().tolist() == [0, 0.5]
    assert ax.collections[0].get_paths()[0].vertices[:, 1].max() == 0.75
    plt.close("all")


@pytest.mark.parametrize("reading", ["literal", "jsws2020"])
def test_the_paper_s_schedule_goes_on_where_it_stopped(
    reading, tiny, tmp_path, monkeypatch
):
    file, measured = tmp_path / "rows.json", []

    def measures(net, profile, limit):
        assert not net.training and profile.schedules[0].optimizer == "adam"
        measured.append(limit)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return {"miou": 0.5}

    monkeypatch.setattr(paper_schedule, "sam_measures", measures)
    monkeypatch.setattr("jsws_lib.engine.loop.SAVE_EVERY", 2)
    options = {"steps": 6, "every": 2, "limit": 3, "file": file}
    with pytest.raises(KeyboardInterrupt):
        paper_schedule.follow(reading, tiny, **options)
    paper_schedule.follow(reading, tiny, **options)
    rows = followed.known(file)
    assert [row["step"] for row in rows] == [0, 2, 4, 6] and len(measured) == 5
    assert {row["lr"] for row in rows} == {learning_rate(paper_schedule.Schedule(), 0, 6)}
    (log,) = (tmp_path / "runs").glob("*/log.csv")
    seen = [record["L_s1"] for record in read_log(log)]
    for row in rows[1:]:
        mean = sum(seen[row["step"] - 2 : row["step"]]) / 2
        assert row["L_s1"] == pytest.approx(mean, abs=1e-5)


def test_the_sam_s_rate_rises_and_nothing_else_moves_it(tiny, monkeypatch):
    rates = {}

    class Watching(paper_size.RisingLoop):
        def after_step(self, net, record):
            rates.setdefault(self.rise, []).append(self.sam["lr"] / record["lr"])
            super().after_step(net, record)

    monkeypatch.setattr(paper_size, "RisingLoop", Watching)
    monkeypatch.setattr(paper_size, "EVERY", 2)
    small = replace(tiny, batch_class=2, batch_saliency=2)
    for rate, (sam_rate, rise) in paper_size.RATES.items():
        rows = paper_size.follow(rate, 0, small, steps=4)
        assert [row["step"] for row in rows] == [0, 2, 4]
        assert all(0 <= row["mean_v"] <= 1 for row in rows)
        k = tiny.size // 8
        full = sam_rate / k
        wanted = [full * (step + 1) / rise if rise else full for step in range(4)]
        assert rates.pop(rise) == pytest.approx(wanted)
