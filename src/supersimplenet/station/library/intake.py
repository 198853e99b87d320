"""Takes pictures into the library: each belongs to a part, and each part has one role, so that no set leaks another."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, insert, select

from supersimplenet.errors import DataError, ImageError
from supersimplenet.preprocessing.decoding import EncodedImage, suffix_of
from supersimplenet.preprocessing.images import pixel_digest, read_image
from supersimplenet.preprocessing.reading import FULL_RANGE, ReadConfig
from supersimplenet.station.library.roles import Role, draw_role, role_of, set_role
from supersimplenet.station.library.store import LibraryStore
from supersimplenet.station.library.versions import Known, Label
from supersimplenet.station.storage.database import now_ms
from supersimplenet.station.storage.schema import PICTURES


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """A picture that comes into the library.

    Attributes:
        content: the bytes of its file.
        name: its name, for people.
        label: whether the part that it shows is good.
        part: name of the part, unique within the dataset; None where it is not known: then it is a part of its own.
        defect: kind of the defect; None for none or an unknown one.
        mask: (H, W) defective pixels of the upright picture; None for none.
        role: what it is used for, where that was decided elsewhere; None to draw it.
    """

    content: bytes
    name: str
    label: Label
    part: str | None = None
    defect: str | None = None
    mask: NDArray[np.bool_] | None = None
    role: Role | None = None


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A picture that the library holds: the SHA-256 of its bytes, and what is known about it."""

    picture: str
    known: Known
    role: Role


def take(
    connection: Connection,
    store: LibraryStore,
    dataset: str,
    incoming: Incoming,
    *,
    reading: ReadConfig = FULL_RANGE,
    has_golden: bool = False,
) -> Taken:
    """Take a picture into the library, and return what a version may say about it.

    A picture belongs to the part that it names, and to that of a picture with the same pixels. Where both have a role,
    it must be the same one.

    Args:
        connection: of a transaction by `writing`.
        store: the library's files.
        dataset: name of the dataset, within which names of parts are unique.
        incoming: the picture.
        reading: how pictures are read.
        has_golden: see `draw_role`.

    Raises:
        ImageError: it cannot be read, or the mask is not one of it.
        DataError: it shows parts of two roles.
        OSError: it cannot be kept.
    """
    pixels = read_image(EncodedImage(incoming.name, lambda: incoming.content), reading=reading)
    height, width = pixels.shape[:2]
    if incoming.mask is not None and incoming.mask.shape != (height, width):
        size = "{} x {}".format(*incoming.mask.shape)
        raise ImageError(f"{incoming.name}: the mask is {size} px (height x width), the picture {height} x {width}")
    sha256, digest = hashlib.sha256(incoming.content).hexdigest(), pixel_digest(pixels)
    own = f"{dataset}/{incoming.part}" if incoming.part is not None else None
    group, role = _group_and_role(connection, dataset, incoming, own=own, digest=digest, has_golden=has_golden)
    kind = suffix_of(incoming.content)
    mask = None if incoming.mask is None else store.add_mask(incoming.mask)
    if connection.execute(select(PICTURES.c.sha256).where(PICTURES.c.sha256 == sha256)).first() is None:
        store.add_picture(incoming.content, sha256, kind)
        connection.execute(
            insert(PICTURES).values(
                sha256=sha256,
                pixels=digest,
                kind=kind,
                size=len(incoming.content),
                width=width,
                height=height,
                name=incoming.name,
                group=group,
                added_at=now_ms(),
            )
        )
    is_bad = incoming.label == "bad"
    known = Known(label=incoming.label, defect=incoming.defect if is_bad else None, mask=mask if is_bad else None)
    return Taken(picture=sha256, known=known, role=role)


def _group_and_role(
    connection: Connection,
    dataset: str,
    incoming: Incoming,
    *,
    own: str | None,
    digest: str,
    has_golden: bool,
) -> tuple[str, Role]:
    """Return the part of a picture and its role, which is drawn or set where it has none."""
    same = connection.execute(select(PICTURES.c.group).where(PICTURES.c.pixels == digest)).scalars().first()
    group = own or same or f"{dataset}/picture {digest}"
    roles = {each: role_of(connection, each) for each in dict.fromkeys(filter(None, (group, same)))}
    known = {role for role in roles.values() if role is not None}
    if incoming.role is not None:
        known.add(incoming.role)
    if len(known) > 1:
        other = f", and has the pixels of a picture of '{same}'" if same not in (None, group) else ""
        wanted = f", asked for {incoming.role}" if incoming.role is not None else ""
        is_used = ", ".join(f"'{each}' is used for {role}" for each, role in roles.items() if role is not None)
        raise DataError(
            f"{incoming.name}: shows '{group}'{other}; {is_used}{wanted}; a part has one role, so leave it out"
        )
    stratum = f"{dataset}: {incoming.defect or incoming.label if incoming.label == 'bad' else 'good'}"
    role = known.pop() if known else None
    if roles[group] is None:
        role = (
            draw_role(connection, group, stratum, has_golden=has_golden)
            if role is None
            else set_role(connection, group, role, stratum)
        )
    assert role is not None
    return group, role
