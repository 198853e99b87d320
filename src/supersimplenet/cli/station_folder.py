"""What commands about a station's folder share: the options that name it, and its database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from supersimplenet.cli.common import OptionParser
from supersimplenet.errors import ConfigError, StationError
from supersimplenet.station.config import DATABASE_FILE, DATABASE_VARIABLE, StationConfig
from supersimplenet.utils.files import is_file
from supersimplenet.utils.formatting import first_line

if TYPE_CHECKING:
    from sqlalchemy import Engine

BY = "command line"  # in the audit trail; no user can have this name


def add_place(parser: OptionParser) -> None:
    """Add the options that name a station."""
    parser.add_argument("--folder", type=Path, default=StationConfig.folder, help="the station's folder")
    parser.add_argument(
        "--database",
        type=str | None,
        help=f"URL of the database, such as postgresql://user@host/station; by default that of the environment "
        f"variable {DATABASE_VARIABLE}, else a file in the folder",
    )


@contextmanager
def station_database(options: Namespace, *, create: bool = False) -> Iterator[Engine]:
    """Yield the station's database; a file that is not there is made, or refused."""
    database = options.database or os.environ.get(DATABASE_VARIABLE) or None  # where no list of processes shows it
    if database is None and not create and not is_file(options.folder / DATABASE_FILE):
        raise ConfigError(f"--folder: {options.folder / DATABASE_FILE}: no such file; name the folder of a station")
    from sqlalchemy.exc import SQLAlchemyError

    from supersimplenet.station.storage.database import open_database

    if database is None:
        try:
            options.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--folder: {options.folder}: cannot be made ({error.strerror}); name another") from error
    engine = open_database(StationConfig(folder=options.folder, database=database).database_url)
    try:
        yield engine
    except SQLAlchemyError as error:
        raise StationError(f"the database cannot be used ({first_line(error)}); check URL and server") from error
    finally:
        engine.dispose()


def require_product(engine: Engine, product: str) -> None:
    """Refuse a product of which the station has no result.

    Raises:
        ConfigError: there is no such product.
    """
    from supersimplenet.station.storage.names import products

    if product not in (known := products(engine)):
        raise ConfigError(f"--product: no result of '{product}'; there are {', '.join(known) or 'none'}")
