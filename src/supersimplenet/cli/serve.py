"""`supersimplenet serve`: a station beside a camera, with a page for the people of the line."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt

from supersimplenet.cli.common import Command, OptionParser, add_engine, compute_config, parse_share
from supersimplenet.cli.last_model import MODEL_HELP, named_or_last
from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import HERE, ComputeConfig
from supersimplenet.utils.console import console, results
from supersimplenet.utils.files import exists
from supersimplenet.utils.formatting import counted

if TYPE_CHECKING:
    from supersimplenet.station.config import StationConfig
    from supersimplenet.station.setup import Setup

_BASIC = (
    "--help",
    "--model",
    "--models",
    "--folder",
    "--setup",
    "--database",
    "--host",
    "--port",
    "--device",
    "--engine",
)
_PRODUCT = re.compile(r"([\w.-]{1,100})=(.+)")
DEFAULT_PRODUCT = "parts"
_NEEDS = "needs FastAPI, SQLAlchemy and others, which are not installed; pip install 'supersimplenet[serve]'"


def command() -> Command:
    """Return the command ``serve``."""
    return Command(
        "serve",
        "inspect the pictures that are sent to it, keep and show the results, until stopped",
        _parser(),
        _run,
        {"setup": "file", "models": "folder", "certificate": "file", "key": "file"},
        {"folder": "folder"},
    )


def _parser() -> OptionParser:
    parser = OptionParser(
        description="Run a station: a service that inspects pictures, and a page that shows the results.", basic=_BASIC
    )
    parser.add_argument(
        "--model",
        type=str,
        nargs="+",
        help=f"{MODEL_HELP}; or an exported file; for several products each as PRODUCT=MODEL",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("station"), help="where results and pictures are kept; by default station/"
    )
    parser.add_argument(
        "--setup", type=Path | None, help="YAML file of cameras and folders to take pictures from, and of outputs"
    )
    parser.add_argument(
        "--host", type=str, default="127.0.0.1", help="address to listen at; by default this computer's own"
    )
    parser.add_argument("--port", type=NonNegativeInt, default=8700, help="port to listen at; 0 for any that is free")
    parser.add_argument(
        "--database", type=str | None, help="URL of a PostgreSQL database; by default a file of SQLite in the folder"
    )
    parser.add_argument("--models", type=Path | None, help="folder of models that may be chosen while the station runs")
    parser.add_argument("--certificate", type=Path | None, help="file of the TLS certificate, with its chain")
    parser.add_argument("--key", type=Path | None, help="file of the certificate's private key")
    parser.add_argument(
        "--public-host", type=str, nargs="+", help="names under which browsers reach the station, through a proxy too"
    )
    parser.add_argument(
        "--https-proxy", action="store_true", help="a proxy in front of the station speaks TLS with browsers"
    )
    parser.add_argument(
        "--workers",
        type=PositiveInt | None,
        help="images that are computed at once, by default one a core; 1 takes all cores for each, the shortest time "
        "for a single camera",
    )
    parser.add_argument("--queue", type=PositiveInt, default=64, help="pictures that may be in work or waiting at once")
    parser.add_argument("--deadline-s", type=float, default=10.0, help="seconds after which a request is given up")
    parser.add_argument("--max-request-mib", type=PositiveInt, default=64, help="largest request")
    parser.add_argument("--max-waiting-mib", type=PositiveInt, default=512, help="memory for all requests together")
    parser.add_argument("--connections", type=PositiveInt, default=256, help="connections at once")
    parser.add_argument(
        "--keep-good", type=str, default="100%", help="share of the pictures of good parts that are kept"
    )
    parser.add_argument("--keep-days", type=float | None, help="days after which pictures are removed; rows stay")
    parser.add_argument("--keep-gib", type=float | None, help="size of all pictures above which the oldest are removed")
    parser.add_argument(
        "--reserve-mib", type=NonNegativeInt, default=1024, help="free space below which no good picture is kept"
    )
    parser.add_argument(
        "--part-minutes",
        type=float,
        default=60.0,
        help="time within which photographs of one name are of one part",
    )
    parser.add_argument("--shift-hours", type=float, default=8.0, help="time that the counts on the page cover")
    parser.add_argument(
        "--review-share",
        type=str,
        default="1%",
        help="share of the parts called good that the review queue asks about by chance, for the estimated rates; near "
        "the threshold, and of other parts, ten times as many",
    )
    parser.add_argument("--review-seed", type=NonNegativeInt, default=0, help="another seed draws other parts")
    add_engine(parser)
    parser.add_argument(
        "--trust", action="store_true", help="open an exported torch program, which may run code of whoever made it"
    )
    return parser


def _run(options: Namespace) -> int:
    models = _models(options.model or ())
    require_serve("serve")
    from supersimplenet.station.config import StationConfig

    compute = compute_config(options)
    config = StationConfig(
        folder=options.folder,
        models=options.models,
        database=options.database,
        host=options.host,
        port=int(options.port),  # the socket takes no subclass
        public_hosts=tuple(options.public_host or ()),
        certificate=options.certificate,
        key=options.key,
        https_proxy=options.https_proxy,
        workers=options.workers,
        queue=options.queue,
        deadline_s=options.deadline_s,
        max_request_mib=options.max_request_mib,
        max_waiting_mib=options.max_waiting_mib,
        connections=options.connections,
        keep_good=parse_share(options.keep_good, "keep-good", ends=True),
        keep_days=options.keep_days,
        keep_gib=options.keep_gib,
        reserve_mib=options.reserve_mib,
        part_minutes=options.part_minutes,
        shift_hours=options.shift_hours,
        review_share=parse_share(options.review_share, "review-share", ends=True),
        review_seed=options.review_seed,
    )
    from supersimplenet.station.setup import NOTHING_SET_UP, read_setup

    setup = NOTHING_SET_UP if options.setup is None else read_setup(options.setup)
    run_station(models, config, setup, compute=compute, trust=options.trust)
    return 0


def require_serve(command: str) -> None:
    """Refuse a command where the packages of a station are not installed."""
    if any(find_spec(name) is None for name in ("fastapi", "uvicorn", "sqlalchemy", "alembic", "argon2")):
        raise ConfigError(f"{command}: {_NEEDS}")


def run_station(
    models: Mapping[str, Path],
    config: StationConfig,
    setup: Setup,
    *,
    compute: ComputeConfig = HERE,
    trust: bool = False,
) -> None:
    """Run a station until it is stopped, and say where it is; see `supersimplenet.station.serve.serve`."""
    from supersimplenet.station.serve import serve

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)

    def started(address: str) -> None:
        everywhere = ", on all addresses of this computer" if config.is_everywhere else ""
        results().print(f"the station: {address}{everywhere}")
        console().print(f"results and pictures: {config.folder}; Ctrl-C stops it, after what it has taken")

    finished = serve(models, config, setup, compute=compute, trust=trust, started=started)
    work = f"finished first: {counted(finished, 'picture')} in work" if finished else "nothing was in work"
    console().print(f"stopped; {work}")


def _models(given: Sequence[str]) -> dict[str, Path]:
    """Return the model of each product.

    Raises:
        ConfigError: several models are named without their products, or a model is not there.
    """
    if not given:
        return {DEFAULT_PRODUCT: named_or_last(None)}
    found: dict[str, Path] = {}
    for text in given:
        match = None if exists(text) else _PRODUCT.fullmatch(text)
        if match is None and len(given) > 1:
            raise ConfigError(
                f"--model: '{text}' of {len(given)} models; wanted each as PRODUCT=MODEL, such as lids={text}"
            )
        product, model = (match[1], match[2]) if match else (DEFAULT_PRODUCT, text)
        if product in found:
            raise ConfigError(f"--model: two models for '{product}'; a product has one")
        if not exists(model):
            raise ConfigError(f"--model: {model}: no such model folder or exported file; check the name")
        found[product] = Path(model)
    return found
