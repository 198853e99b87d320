"""Versions of a dataset: which pictures it holds and what is known about each, at any time since it was begun."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ColumnElement, Connection, and_, func, insert, or_, select, update

from supersimplenet.errors import ConfigError
from supersimplenet.station.library.roles import Role
from supersimplenet.station.storage.database import now_ms
from supersimplenet.station.storage.schema import DATASETS, ENTRIES, PICTURES, ROLES, VERSIONS
from supersimplenet.utils.iteration import in_blocks

Label = Literal["good", "bad"]
_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known about a picture.

    Attributes:
        label: whether the part that it shows is good.
        defect: kind of the defect; None for a good part, or where the kind is not known.
        mask: SHA-256 of the mask's file; None for none: the picture is a weak label.
    """

    label: Label
    defect: str | None = None
    mask: str | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A picture of a version.

    Attributes:
        picture: SHA-256 of its bytes.
        kind: suffix of its file.
        name: its name when it first came.
        group: the part that it shows.
        role: what that part is used for.
        known: what this version says about it.
    """

    picture: str
    kind: str
    name: str
    group: str
    role: Role
    known: Known


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of a dataset.

    Attributes:
        dataset: name of the dataset.
        number: from 1.
        at: when it was made, in milliseconds since 1970.
        who: who made it.
        why: in words.
        added: pictures that the version before did not hold.
        changed: pictures of which it says something else.
        removed: pictures that it does not hold any more.
        digest: SHA-256 of all that it holds; equal digests hold the same.
    """

    dataset: str
    number: int
    at: int
    who: str
    why: str
    added: int
    changed: int
    removed: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Change:
    """What differs for a picture between two versions; None where one of them does not hold it."""

    picture: str
    before: Known | None
    after: Known | None


def begin(connection: Connection, dataset: str, *, who: str) -> None:
    """Begin a dataset where there is none of this name."""
    if dataset not in names(connection):
        connection.execute(insert(DATASETS).values(name=dataset, created_at=now_ms(), created_by=who))


def names(connection: Connection) -> list[str]:
    """Return the names of all datasets."""
    return list(connection.execute(select(DATASETS.c.name).order_by(DATASETS.c.name)).scalars())


def versions(connection: Connection, dataset: str) -> list[Version]:
    """Return the versions of a dataset, oldest first.

    Raises:
        ConfigError: there is no such dataset.
    """
    found = connection.execute(select(VERSIONS).where(VERSIONS.c.dataset == dataset).order_by(VERSIONS.c.number))
    rows = [Version(**row) for row in found.mappings()]
    if not rows and dataset not in (known := names(connection)):
        raise ConfigError(f"dataset: no dataset '{dataset}'; there {'are ' + ', '.join(known) if known else 'is none'}")
    return rows


def version(connection: Connection, dataset: str, number: int | None = None) -> Version:
    """Return a version of a dataset, by default the newest.

    Raises:
        ConfigError: there is no such version.
    """
    known = versions(connection, dataset)
    if not known:
        raise ConfigError(f"dataset: '{dataset}' has no version yet")
    if number is None:
        return known[-1]
    if not 1 <= number <= len(known):
        raise ConfigError(f"version: {number}; '{dataset}' has versions 1 to {len(known)}")
    return known[number - 1]


def entries(connection: Connection, wanted: Version) -> list[Entry]:
    """Return the pictures of a version, in the order in which they came."""
    e, p, r = ENTRIES.c, PICTURES.c, ROLES.c
    query = (
        select(p.sha256, p.kind, p.name, p.group, r.role, e.label, e.defect, e.mask)
        .join_from(ENTRIES, PICTURES, e.picture == p.sha256)
        .join(ROLES, r.group == p.group)
        .where(e.dataset == wanted.dataset, _held(wanted.number))
        .order_by(p.added_at, p.sha256)
    )
    return [
        Entry(
            picture=row.sha256,
            kind=row.kind,
            name=row.name,
            group=row.group,
            role=row.role,
            known=Known(label=row.label, defect=row.defect, mask=row.mask),
        )
        for row in connection.execute(query)
    ]


def counts(connection: Connection, wanted: Version) -> Counter[tuple[Role, Label]]:
    """Return the number of pictures of a version, by role and label."""
    e, p, r = ENTRIES.c, PICTURES.c, ROLES.c
    query = (
        select(r.role, e.label, func.count())
        .join_from(ENTRIES, PICTURES, e.picture == p.sha256)
        .join(ROLES, r.group == p.group)
        .where(e.dataset == wanted.dataset, _held(wanted.number))
        .group_by(r.role, e.label)
    )
    return Counter({(role, label): number for role, label, number in connection.execute(query)})


def commit(
    connection: Connection,
    dataset: str,
    known: Mapping[str, Known],
    *,
    remove: Collection[str] = (),
    who: str,
    why: str,
) -> Version | None:
    """Make a version of a dataset; return None where nothing would differ from the newest one.

    Args:
        connection: of a transaction by `writing`.
        dataset: name of the dataset; it is begun where there is none.
        known: what is known about pictures from now on, by the SHA-256 of pictures that the library holds; others stay.
        remove: pictures that the dataset holds no more.
        who: who makes it.
        why: in words.
    """
    begin(connection, dataset, who=who)
    before = versions(connection, dataset)
    held = _known(connection, dataset, before[-1].number) if before else {}
    added = {picture: now for picture, now in known.items() if picture not in held}
    changed = {picture: now for picture, now in known.items() if picture in held and held[picture] != now}
    removed = [picture for picture in remove if picture in held and picture not in known]
    if not (added or changed or removed):
        return None
    number = len(before) + 1
    e = ENTRIES.c
    for pictures in in_blocks([*changed, *removed], _AT_ONCE):
        ends = update(ENTRIES).where(e.dataset == dataset, e.picture.in_(pictures), e.until.is_(None))
        connection.execute(ends.values(until=number))
    rows = [
        {"dataset": dataset, "picture": picture, **vars(now), "since": number, "until": None}
        for picture, now in (added | changed).items()
    ]
    if rows:
        connection.execute(insert(ENTRIES), rows)
    made = Version(
        dataset=dataset,
        number=number,
        at=now_ms(),
        who=who,
        why=why,
        added=len(added),
        changed=len(changed),
        removed=len(removed),
        digest="",
    )
    made = Version(**(vars(made) | {"digest": digest_of(entries(connection, made))}))
    connection.execute(insert(VERSIONS).values(**vars(made)))
    return made


def changes(connection: Connection, dataset: str, before: int, after: int) -> list[Change]:
    """Return what differs between two versions of a dataset.

    Raises:
        ConfigError: there is no such version.
    """
    one, other = (_known(connection, dataset, version(connection, dataset, each).number) for each in (before, after))
    return [
        Change(picture=picture, before=one.get(picture), after=other.get(picture))
        for picture in {**one, **other}
        if one.get(picture) != other.get(picture)
    ]


def digest_of(held: Iterable[Entry]) -> str:
    """Return the SHA-256 of what a version holds, whatever the order: pictures, parts, roles, labels and masks."""
    lines = sorted(json.dumps([e.picture, e.group, e.role, e.known.label, e.known.defect, e.known.mask]) for e in held)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _known(connection: Connection, dataset: str, number: int) -> dict[str, Known]:
    e = ENTRIES.c
    query = select(e.picture, e.label, e.defect, e.mask).where(e.dataset == dataset, _held(number)).order_by(e.number)
    return {row.picture: Known(label=row.label, defect=row.defect, mask=row.mask) for row in connection.execute(query)}


def _held(number: int) -> ColumnElement[bool]:
    e = ENTRIES.c
    return and_(e.since <= number, or_(e.until.is_(None), e.until > number))
