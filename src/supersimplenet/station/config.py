"""Settings of a station."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from supersimplenet.errors import ConfigError
from supersimplenet.station.review.sampling import Sampling

DATABASE_FILE = "station.db"
DATABASE_VARIABLE = "SUPERSIMPLENET_DATABASE"  # environment variable: URL of the database, for commands


@dataclass(frozen=True, kw_only=True)
class StationConfig:
    """Settings of a station.

    Attributes:
        folder: where pictures, maps and, by default, the database are kept.
        models: folder of models that may be chosen while the station runs; None for no change.
        database: URL of the database; None for a file of SQLite in the folder.
        host: address to listen at. The default is reached from this computer alone.
        port: port to listen at; 0 for any that is free.
        public_hosts: names under which browsers reach the station through a proxy, such as ``station.example.com``.
        certificate: file of the TLS certificate with its chain; None for no TLS.
        key: file of the certificate's private key.
        https_proxy: whether a proxy in front of the station speaks TLS with browsers.
        workers: images that are computed at once, each on one core; None for one a core. With 1 they are computed one
            after another, each on all cores: the shortest time for a single camera.
        queue: images that may be in work or waiting at once; further ones are refused with 503.
        deadline_s: seconds after which a request that still waits is answered with 504.
        max_request_mib: largest request, in MiB.
        max_waiting_mib: memory for the bodies of all requests together, in MiB; beyond it requests get 503.
        connections: connections at once; further ones get 503.
        body_timeout_s: seconds without a byte after which a request or a connection is ended.
        keep_good: share of the pictures of good parts that are kept, 0 to 1. All others are kept.
        keep_days: days after which pictures are removed, their rows stay; None for no limit.
        keep_gib: size of all pictures above which the oldest are removed, those of good parts first; None for no limit.
        reserve_mib: free space below which no picture of a good part is kept, so that rows find room.
        part_minutes: photographs of the same part name that come within so many minutes are of one part; later ones are
            of another part of that name.
        shift_hours: length of the time that the counts on the page cover.
        review_share: share of the parts called good that the review queue asks about by chance, to estimate rates;
            near the threshold, and of parts called unsure or bad, ten times as many.
        review_seed: another seed draws other parts.

    Raises:
        ConfigError: a value is out of its range.
    """

    folder: Path = Path("station")
    models: Path | None = None
    database: str | None = None
    host: str = "127.0.0.1"
    port: int = 8700
    public_hosts: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    https_proxy: bool = False
    workers: int | None = None
    queue: int = 64
    deadline_s: float = 10.0
    max_request_mib: int = 64
    max_waiting_mib: int = 512
    connections: int = 256
    body_timeout_s: float = 20.0
    keep_good: float = 1.0
    keep_days: float | None = None
    keep_gib: float | None = None
    reserve_mib: int = 1024
    part_minutes: float = 60.0
    shift_hours: float = 8.0
    review_share: float = 0.01
    review_seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("workers", 1),
            ("queue", 1),
            ("max_request_mib", 1),
            ("max_waiting_mib", 1),
            ("connections", 1),
        ):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ConfigError(f"{name}: {getattr(self, name)}; wanted {least} or more")
        for name in ("deadline_s", "body_timeout_s", "part_minutes", "shift_hours", "keep_days", "keep_gib"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name}: {value}; wanted above 0")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port: {self.port}; wanted 0 to 65535")
        for name in ("keep_good", "review_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: {getattr(self, name)}; wanted a share from 0 to 1")
        if self.reserve_mib < 0:
            raise ConfigError(f"reserve_mib: {self.reserve_mib}; wanted 0 or more")
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("certificate and key: one is given without the other; TLS needs both")

    @property
    def database_url(self) -> str:
        """The URL of the database."""
        return self.database or f"sqlite:///{self.folder / DATABASE_FILE}"

    @property
    def sampling(self) -> Sampling:
        """How parts are drawn for the review queue."""
        return Sampling(share=self.review_share, seed=self.review_seed)

    @property
    def part_ms(self) -> int:
        """Time within which photographs of the same part name are of one part, in milliseconds."""
        return round(self.part_minutes * 60_000)

    @property
    def is_https(self) -> bool:
        """Whether browsers reach the station by https."""
        return self.certificate is not None or self.https_proxy

    @property
    def is_local(self) -> bool:
        """Whether the station is reached from this computer alone."""
        return is_loopback(self.host)

    @property
    def is_everywhere(self) -> bool:
        """Whether the station listens on all addresses of this computer."""
        address = _address(self.host)
        return address is not None and address.is_unspecified


def is_loopback(host: str) -> bool:
    """Return whether an address, or ``localhost``, is reached from this computer alone."""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:  # a name
        return None
