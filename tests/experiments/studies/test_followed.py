"""Measures over the steps: rows written once, the paper's schedule, rates at its size."""

import json
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest

from jsws_lib.experiments.studies import followed, paper_schedule, paper_size
from jsws_lib.training import learning_rate


def test_rows_are_written_once_and_shown_with_the_spread_over_seeds(tmp_path):
    file, asked = tmp_path / "rows.json", []

    def follow(rate, seed):
        asked.append(seed)
        return [{"step": 0, "miou": 0.0}, {"step": 1000, "miou": (0.25, 0.75)[seed]}]

    for seeds in ((0,), (0, 1)):
        runs = [("1/k", seed) for seed in seeds]
        rows = followed.complete(file, "rate", runs, follow, words="how")
    assert asked == [0, 1] and len(rows) == 4
    stored = json.loads(file.read_text())
    assert stored["words"] == "how" and stored["versions"]["torch"]
    assert stored["rows"] == followed.known(file) == rows
    line = followed.table(rows, "rate", {"miou": "mIoU"}).splitlines()[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["1/k", "2", "1,000", "0.000 → 0.500"]
    (ax,) = followed.chart(rows, "rate", {"miou": "mIoU"}).axes
    assert ax.lines[0].get_ydata().tolist() == [0, 0.5]
    assert ax.collections[0].get_paths()[0].vertices[:, 1].max() == 0.75
    plt.close("all")


@pytest.mark.parametrize("reading", paper_schedule.READINGS)
def test_the_paper_s_schedule_is_measured_on_the_way(reading, tiny, monkeypatch):
    loops = []

    class Kept(paper_schedule.Following):
        def __init__(self, *given):
            super().__init__(*given)
            loops.append(self)

    def measures(net, profile):
        assert not net.training and profile.schedules[0].optimizer == "adam"
        return {"miou": 0.5}

    monkeypatch.setattr(paper_schedule, "Following", Kept)
    monkeypatch.setattr(paper_schedule, "sam_measures", measures)
    rows = paper_schedule.follow(reading, 0, tiny, steps=6, every=2)
    assert [row["step"] for row in rows] == [0, 2, 4, 6]
    (history,) = (loop.history for loop in loops)
    rate = learning_rate(paper_schedule.Schedule(), 0, 6)
    assert {record["lr"] for record in history} == {rate}
    for row in rows[1:]:
        seen = [record["L_s1"] for record in history[row["step"] - 2 : row["step"]]]
        assert row["L_s1"] == pytest.approx(sum(seen) / 2, abs=1e-5)


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
        rows = paper_size.follow(rate, 0, small)
        assert [row["step"] for row in rows] == [0, 2, 4]
        assert all(0 <= row["mean_v"] <= 1 for row in rows)
        full = sam_rate / (tiny.size // 8)
        wanted = [full * (step + 1) / rise if rise else full for step in range(4)]
        assert rates.pop(rise) == pytest.approx(wanted)
