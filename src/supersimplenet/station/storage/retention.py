"""Removes pictures that are too old, or too many; their rows stay."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

from sqlalchemy import Connection, Engine, and_, case, func, select, update
from sqlalchemy.exc import SQLAlchemyError

from supersimplenet.station.config import StationConfig
from supersimplenet.station.storage.database import now_ms, writing
from supersimplenet.station.storage.pictures import PictureStore
from supersimplenet.station.storage.schema import RESULTS
from supersimplenet.utils.formatting import first_line

_EVERY_S = 60.0
_AT_ONCE = 200
_DAY_MS = 86_400_000


class Retention:
    """Removes pictures in the background, once a minute.

    Args:
        engine: the database.
        store: the pictures.
        config: the station's settings.
        waits: returns whether results wait for the database; their pictures would seem to be of no result.
        say: called with a line about a trouble.
    """

    def __init__(
        self,
        engine: Engine,
        store: PictureStore,
        config: StationConfig,
        *,
        waits: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        self._engine, self._store, self._config = engine, store, config
        self._waits, self._say = waits, say
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._ended.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            if not self._waits():
                self._remove()

    def _remove(self) -> None:
        try:
            remove_pictures(self._engine, self._store, self._config)
        except (SQLAlchemyError, OSError) as error:
            self._say(f"old pictures cannot be removed now ({first_line(error)})")


def remove_pictures(engine: Engine, store: PictureStore, config: StationConfig) -> int:
    """Remove pictures as the settings say; return the number of results whose picture is removed.

    Above the limit of size, pictures of good parts go first, then those of others, the oldest first. A picture that
    several results have is removed with the last of them. One that came just now, again or for the first time, stays
    unclaimed until it is certain that no result of it is on its way into the database.
    """
    removed = 0
    _remove_unclaimed(engine, store)
    if config.keep_days is not None:
        before = now_ms() - round(config.keep_days * _DAY_MS)
        while found := _oldest(engine, RESULTS.c.taken_at < before):
            removed += _remove(engine, store, found)
    if config.keep_gib is not None:
        limit = round(config.keep_gib * (1 << 30))
        while _kept_bytes(engine) > limit and (found := _oldest(engine, RESULTS.c.kept)):
            removed += _remove(engine, store, found)
    return removed


def _kept_bytes(engine: Engine) -> int:
    each = select(RESULTS.c.picture, func.max(RESULTS.c.size).label("size")).where(RESULTS.c.kept)
    pictures = each.group_by(RESULTS.c.picture).subquery()
    with engine.connect() as connection:
        return int(connection.execute(select(func.coalesce(func.sum(pictures.c.size), 0))).scalar_one())


def _oldest(engine: Engine, condition: object) -> Sequence[tuple[str, str, str]]:
    """Return id, picture and kind of some results whose picture is kept: good ones, else others; oldest first."""
    c = RESULTS.c
    query = (
        select(c.id, c.picture, c.kind)
        .where(and_(c.kept, condition))  # type: ignore[arg-type]
        .order_by(case((c.verdict == "good", 0), else_=1), c.id)
        .limit(_AT_ONCE)
    )
    with engine.connect() as connection:
        return [(row.id, row.picture, row.kind) for row in connection.execute(query)]


def _remove(engine: Engine, store: PictureStore, found: Sequence[tuple[str, str, str]]) -> int:
    c = RESULTS.c
    ids = [result for result, _, _ in found]
    with writing(engine) as connection:  # first the rows: a picture without a row is a smaller evil than the reverse
        connection.execute(update(RESULTS).where(c.id.in_(ids)).values(kept=False))
        pictures = {picture for _, picture, _ in found}
        still = _claimed(connection, pictures)
    for result, picture, kind in found:
        store.remove_heat(result)
        if picture not in still and not store.remove_picture(picture, kind):
            store.unclaimed.append((picture, kind))
    return len(found)


def _remove_unclaimed(engine: Engine, store: PictureStore) -> None:
    """Remove pictures that turned out to be of no result."""
    for _ in range(len(store.unclaimed)):
        picture, kind = store.unclaimed[0]
        with engine.connect() as connection:
            is_claimed = bool(_claimed(connection, {picture}))
        is_done = is_claimed or store.remove_picture(picture, kind)
        store.unclaimed.popleft()
        if not is_done:
            store.unclaimed.append((picture, kind))


def _claimed(connection: Connection, pictures: Collection[str]) -> set[str]:
    """Return those of some pictures that results have."""
    c = RESULTS.c
    return set(connection.execute(select(c.picture).where(and_(c.kept, c.picture.in_(pictures)))).scalars())
