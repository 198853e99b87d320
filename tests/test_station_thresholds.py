"""Thresholds that a person sets at the station: what then holds, who set it, and that no verdict is left in between."""

from __future__ import annotations

import math
import shutil
from datetime import datetime

import pytest
from report_case import Case, make_case, make_samples
from station_process import StationProcess

from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.inference.config import CALIBRATION_FILE
from supersimplenet.station.thresholds import with_threshold


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    return make_case(
        folder / "model", make_samples(folder / "data"), config=ThresholdConfig(max_false_alarms=0.25, max_escapes=0.25)
    )


def put(station, threshold_logit: object) -> object:
    return station.client.put("/v1/products/parts/threshold", json={"threshold_logit": threshold_logit})


def test_a_threshold_that_is_set_decides_holds_and_stays(case, tmp_path):
    calibration = case.detector.calibration
    content = case.samples[-1].image.read_bytes()
    station = StationProcess(case.detector.folder, folder=tmp_path / "station")
    first = station.inspect(content, name="a.png")
    before = station.get("/v1/products/parts/threshold")
    assert (before["threshold_logit"], before["set_by"]) == (calibration.threshold_logit, None)
    assert before["guarantee"] == calibration.guarantee()
    assert before["part_logits"] == list(calibration.part_logits)

    just_above = math.nextafter(first["score_logit"], math.inf)
    for threshold, verdicts in ((just_above, {"good", "unsure"}), (first["score_logit"], {"bad"})):
        preview = station.get("/v1/products/parts/threshold", preview=threshold)
        parts = calibration.parts
        above = sum(score >= threshold for score in calibration.part_logits) / parts
        bound = min(1.0, above + math.sqrt(-math.log(1 - calibration.confidence) / (2 * parts)))
        assert preview["max_false_alarms"] == pytest.approx(bound)
        answer = put(station, threshold).json()
        assert {**answer, "set_by": None, "set_at": None} == {**preview, "set_by": None, "set_at": None}
        assert answer["set_by"] == "local"
        result = station.inspect(content, name="a.png")
        assert result["model"] == answer["model"] != first["model"]
        assert result["verdict"] in verdicts
        assert station.get(f"/v1/models/{result['model']}")["facts"]["threshold_logit"] == threshold
    scores = station.get("/v1/products/parts/scores", since="2026-01-01T00:00:00Z")
    assert scores["scores_logit"] == [round(first["score_logit"], 4)] * 3  # whatever threshold they had
    station.stop()

    station.start()
    with station:
        assert station.get("/v1/products/parts/threshold")["threshold_logit"] == first["score_logit"]
        back = put(station, None).json()
        assert (back["threshold_logit"], back["set_by"]) == (calibration.threshold_logit, None)
        assert station.inspect(content, name="a.png")["model"] == first["model"]
        trail = [entry for entry in station.get("/v1/audit")["entries"] if entry["what"] == "threshold"]
        assert [entry["details"]["threshold_logit"] for entry in trail] == [
            calibration.threshold_logit,
            first["score_logit"],
            just_above,
        ]
        for wrong in ("high", True, [1]):
            assert put(station, wrong).status_code == 422
        nan = station.client.put("/v1/products/parts/threshold", content='{"threshold_logit": NaN}')
        assert nan.status_code == 422
        assert station.client.put("/v1/products/lids/threshold", json={"threshold_logit": 0.0}).status_code == 404


@pytest.mark.slow
def test_no_threshold_is_set_where_nothing_would_hold(case, tmp_path):
    model = shutil.copytree(case.detector.folder, tmp_path / "model", ignore=shutil.ignore_patterns(CALIBRATION_FILE))
    with StationProcess(model, folder=tmp_path / "station") as station:
        answer = put(station, 0.5)
        assert answer.status_code == 409
        assert "run supersimplenet calibrate first" in answer.json()["error"]["message"]
        assert station.get("/v1/products/parts/threshold")["guarantee"] is None


def test_the_guarantee_of_a_set_threshold_has_the_date_of_the_setting(case):
    """Not that of the start: the model's id is a hash of it, and would be another one each day."""
    calibration = case.detector.calibration
    set_at = datetime(2026, 3, 1, 12).astimezone()
    own = with_threshold(calibration, 2.0, at_ms=round(set_at.timestamp() * 1000))
    assert own.date == "2026-03-01"
    assert "2026-03-01" in own.guarantee()
