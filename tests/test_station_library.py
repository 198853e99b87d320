"""Datasets with versions: what each version holds, one role for each part, and answers that become labels."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from station_records import result

from supersimplenet.errors import ConfigError, DataError, ImageError
from supersimplenet.station.library.intake import Incoming, Taken, take
from supersimplenet.station.library.reviewed import gather
from supersimplenet.station.library.roles import draw_role, role_of
from supersimplenet.station.library.store import LibraryStore, mask_png, read_sent_mask
from supersimplenet.station.library.versions import Known, changes, commit, entries, version, versions
from supersimplenet.station.review.answers import add_answer, answers_to
from supersimplenet.station.review.opinions import Answer, Said, opinion_of
from supersimplenet.station.storage.database import open_database, writing
from supersimplenet.station.storage.pictures import PictureStore
from supersimplenet.station.storage.recorder import insert_results
from supersimplenet.station.storage.results import find

GOOD, BAD = Said(answer="good"), Said(answer="bad")


def picture(seed: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture
def engine(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'station.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def store(tmp_path) -> LibraryStore:
    return LibraryStore(tmp_path)


def took(engine, store, seed: int, *, kind: str = "PNG", label="good", **known) -> Taken:
    with writing(engine) as connection:
        incoming = Incoming(content=picture(seed, kind), name=f"{seed}.png", label=label, **known)
        return take(connection, store, "tiles", incoming)


# ---------------------------------------------------------------------------------------------------- opinions


def said(*answers: tuple[str, str | None]) -> list[Answer]:
    return [
        Answer(number=number, result="r", who=who, at=number, answer=answer)
        for number, (who, answer) in enumerate(answers, start=1)
    ]


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        ([], None),
        ([("anna", "good")], "good"),
        ([("anna", "good"), ("anna", "bad")], "bad"),
        ([("anna", "good"), ("anna", None)], None),
        ([("anna", "good"), ("ben", "bad")], "disputed"),
        ([("anna", "good"), ("ben", "bad"), ("cem", "bad")], "bad"),
        ([("anna", "good"), ("ben", "bad"), ("cem", "unusable")], "disputed"),
        ([("anna", "good"), ("ben", "bad"), ("anna", "bad")], "bad"),
        ([("anna", "good"), ("ben", "bad"), ("ben", None)], "good"),
        ([("anna", "unusable")], "unusable"),
    ],
)
def test_each_persons_last_answer_counts_and_a_majority_decides(answers, wanted):
    opinion = opinion_of(said(*answers))
    assert (opinion.answer if opinion is not None else None) == wanted


def test_kind_and_mask_are_those_of_people_who_say_bad():
    with_mask = Answer(number=1, result="r", who="anna", at=1, answer="bad", defect="crack", mask="a" * 64)
    without = Answer(number=2, result="r", who="ben", at=2, answer="bad")
    good = Answer(number=3, result="r", who="cem", at=3, answer="good", defect=None)
    opinion = opinion_of([with_mask, without, good])
    assert (opinion.answer, opinion.defect, opinion.mask, opinion.people) == ("bad", "crack", "a" * 64, 3)
    assert opinion_of([with_mask, good]).mask is None  # disputed


def test_answers_are_added_and_the_result_says_what_they_say_together(engine):
    row = result()
    insert_results(engine, [row])
    with writing(engine) as connection:
        add_answer(connection, row["id"], Said(answer="bad", defect="crack"), who="anna", at=5)
        add_answer(connection, row["id"], GOOD, who="ben", at=7)
    found = find(engine, row["id"])
    assert (found["review"], found["reviewed_by"], found["reviewed_at"]) == ("disputed", "ben", 7)
    assert found["review_defect"] is None
    with writing(engine) as connection:
        add_answer(connection, row["id"], Said(answer=None), who="ben")
    found = find(engine, row["id"])
    assert (found["review"], found["reviewed_by"], found["review_defect"]) == ("bad", "anna", "crack")
    with engine.connect() as connection:
        trail = [(answer.who, answer.answer) for answer in answers_to(connection, row["id"])]
    assert trail == [("anna", "bad"), ("ben", "good"), ("ben", None)]


# ------------------------------------------------------------------------------------------------------- roles


def test_of_ten_parts_seven_train_two_calibrate_and_one_is_golden(engine):
    with writing(engine) as connection:
        roles = [draw_role(connection, f"part {number}", "tiles: good") for number in range(40)]
        other = [draw_role(connection, f"bad {number}", "tiles: crack") for number in range(10)]
        apart = [draw_role(connection, f"apart {number}", "tiles: good", has_golden=True) for number in range(10)]
        assert role_of(connection, "part 3") == roles[3]
    for start in range(0, 40, 10):
        assert Counter(roles[start : start + 10]) == {"train": 7, "calibration": 2, "golden": 1}
    assert Counter(other) == {"train": 7, "calibration": 2, "golden": 1}
    assert Counter(apart) == {"train": 8, "calibration": 2}
    assert len({tuple(roles[start : start + 10]) for start in range(0, 40, 10)}) > 1  # in another order each time


def test_pictures_of_a_part_and_copies_of_a_picture_have_one_role(engine, store):
    roles = {part: took(engine, store, seed, part=part).role for seed, part in enumerate("abcdefghij")}
    assert {took(engine, store, 100 + seed, part=part).role == roles[part] for seed, part in enumerate(roles)} == {True}
    first = took(engine, store, 500)
    copy = took(engine, store, 500, kind="BMP")  # other bytes, the same pixels
    assert copy.picture != first.picture
    assert copy.role == first.role
    # A part of which a picture is known without its name
    assert took(engine, store, 500, part="named later").role == first.role
    assert took(engine, store, 501, part="named later").role == first.role


def test_a_picture_that_would_join_two_roles_is_refused(engine, store):
    roles = {part: took(engine, store, seed, part=part).role for seed, part in enumerate("abcdefghij")}
    trained = next(part for part, role in roles.items() if role == "train")
    golden = next(part for part, role in roles.items() if role == "golden")
    seed = list(roles).index(golden)
    with pytest.raises(DataError, match=rf"'tiles/{trained}' is used for train, 'tiles/{golden}' is used for golden"):
        took(engine, store, seed, part=trained)
    with pytest.raises(DataError, match=r"asked for golden; a part has one role"):
        took(engine, store, 200, part=trained, role="golden")


# ---------------------------------------------------------------------------------------------------- versions


def test_each_version_holds_what_was_known_when_it_was_made(engine, store):
    one, two = took(engine, store, 1), took(engine, store, 2)
    mask = np.zeros((12, 16), dtype=bool)
    mask[3:5, 6:9] = True
    with writing(engine) as connection:
        first = commit(connection, "tiles", {one.picture: one.known, two.picture: two.known}, who="anna", why="begin")
        assert commit(connection, "tiles", {one.picture: one.known}, who="anna", why="again") is None
    marked = took(engine, store, 2, label="bad", defect="crack", mask=mask)
    with writing(engine) as connection:
        second = commit(connection, "tiles", {marked.picture: marked.known}, who="ben", why="a crack")
        third = commit(connection, "tiles", {}, remove=[one.picture], who="ben", why="not sharp")
        fourth = commit(connection, "tiles", {one.picture: one.known, two.picture: two.known}, who="ben", why="back")
    assert [(v.number, v.added, v.changed, v.removed) for v in (first, second, third, fourth)] == [
        (1, 2, 0, 0),
        (2, 0, 1, 0),
        (3, 0, 0, 1),
        (4, 1, 1, 0),
    ]
    good, bad = Known(label="good"), Known(label="bad", defect="crack", mask=marked.known.mask)
    with engine.connect() as connection:
        held = {
            number: {entry.picture: entry.known for entry in entries(connection, version(connection, "tiles", number))}
            for number in (1, 2, 3, 4)
        }
        assert versions(connection, "tiles") == [first, second, third, fourth]
        assert [(c.picture, c.before, c.after) for c in changes(connection, "tiles", 2, 3)] == [
            (one.picture, good, None)
        ]
        with pytest.raises(ConfigError, match="version: 5; 'tiles' has versions 1 to 4"):
            version(connection, "tiles", 5)
        with pytest.raises(ConfigError, match="no dataset 'tile'; there are tiles"):
            version(connection, "tile")
    assert held[1] == {one.picture: good, two.picture: good}
    assert held[2] == {one.picture: good, two.picture: bad}
    assert held[3] == {two.picture: bad}
    assert held[4] == held[1]
    assert fourth.digest == first.digest != second.digest
    kept = np.asarray(Image.open(store.mask(marked.known.mask)))
    assert np.array_equal(kept == 255, mask)


def test_a_mask_of_another_size_or_without_a_mark_is_refused(engine, store):
    with pytest.raises(ImageError, match=r"7\.png: the mask is 12 x 15 px \(height x width\), the picture 12 x 16"):
        took(engine, store, 7, label="bad", mask=np.ones((12, 15), dtype=bool))
    with pytest.raises(ImageError, match=r"the mask is 12 x 15 .*its image 12 x 16"):
        read_sent_mask(mask_png(np.ones((12, 15), dtype=bool)), image_size_px=(12, 16))
    with pytest.raises(ImageError, match="mask: marks nothing"):
        read_sent_mask(mask_png(np.zeros((12, 16), dtype=bool)), image_size_px=(12, 16))


# ------------------------------------------------------------------------------------------- answers to labels


def inspected(engine, pictures: PictureStore, seed: int, **row) -> dict:
    content = picture(seed)
    sha256 = hashlib.sha256(content).hexdigest()
    pictures.add_picture(content, sha256)
    found = result(picture=sha256, name=f"{seed}.png", **row)
    insert_results(engine, [found])
    return found


def test_agreed_answers_become_a_version(engine, store, tmp_path):
    pictures = PictureStore(tmp_path)
    rows = [inspected(engine, pictures, seed) for seed in range(6)]
    again = inspected(engine, pictures, 4)  # the same picture once more
    mask = np.zeros((12, 16), dtype=bool)
    mask[0, 0] = True
    drawn = Said(answer="bad", defect="hole", mask=store.add_mask(mask))
    with writing(engine) as connection:
        for row, own in zip(rows, (GOOD, drawn, Said(answer="unusable"), GOOD, GOOD, GOOD), strict=True):
            add_answer(connection, row["id"], own, who="anna")
        add_answer(connection, rows[3]["id"], BAD, who="ben")
        add_answer(connection, again["id"], BAD, who="ben")  # contradicts the answer about the first time
    pictures.picture(rows[5]["picture"], "png").unlink()
    found = gather(engine, pictures, store, product="parts", dataset="tiles", who="anna")
    assert (found.taken, found.unusable, found.disputed, found.not_kept, found.left_out) == (2, 1, 2, 1, {})
    with engine.connect() as connection:
        held = {entry.name: entry.known for entry in entries(connection, found.version)}
    assert held == {"0.png": Known(label="good"), "1.png": Known(label="bad", defect="hole", mask=drawn.mask)}
    assert gather(engine, pictures, store, product="parts", dataset="tiles", who="anna").version is None
    with writing(engine) as connection:
        add_answer(connection, rows[0]["id"], Said(answer="unusable"), who="anna")
    pictures.picture(rows[1]["picture"], "png").unlink()  # the library has it
    found = gather(engine, pictures, store, product="parts", dataset="tiles", who="anna")
    assert (found.version.number, found.version.removed, found.taken, found.not_kept) == (2, 1, 1, 1)


def test_parts_that_share_pixels_over_two_roles_are_left_out_with_the_reason(engine, store, tmp_path):
    pictures = PictureStore(tmp_path)
    roles = {part: took(engine, store, seed, part=part).role for seed, part in enumerate("abcdefghij")}
    golden = next(part for part, role in roles.items() if role == "golden")
    other = next(part for part, role in roles.items() if role == "train")
    row = inspected(engine, pictures, list(roles).index(golden), part=other)
    with writing(engine) as connection:
        add_answer(connection, row["id"], GOOD, who="anna")
    found = gather(engine, pictures, store, product="parts", dataset="tiles", who="anna")
    assert found.version is None
    assert "a part has one role, so leave it out" in found.left_out[row["name"]]


def test_reviews_of_an_earlier_version_are_the_first_answers(tmp_path):
    from alembic import command
    from alembic.config import Config

    from supersimplenet.station.storage import database

    url = f"sqlite:///{tmp_path / 'old.db'}"
    engine = database._engine(url)
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    row = result() | {"review": "bad", "reviewed_by": "anna", "reviewed_at": 5}
    old = {name: value for name, value in row.items() if name not in ("review_defect", "review_mask")}
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        names = ", ".join(f'"{name}"' for name in old)
        marks = ", ".join("?" for _ in old)
        values = tuple("{}" if name == "row" else value for name, value in old.items())
        connection.exec_driver_sql(f"INSERT INTO results ({names}) VALUES ({marks})", values)
    engine.dispose()
    engine = open_database(url)
    with engine.connect() as connection:
        (answer,) = answers_to(connection, row["id"])
    engine.dispose()
    assert (answer.who, answer.at, answer.answer, answer.asked) == ("anna", 5, "bad", None)
