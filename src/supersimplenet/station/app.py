"""The service as a FastAPI application: routes, page, errors, and who may use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from supersimplenet.station import pages
from supersimplenet.station.access.guards import Guard
from supersimplenet.station.api import access as access_api
from supersimplenet.station.api import datasets as datasets_api
from supersimplenet.station.api import inspection as inspection_api
from supersimplenet.station.api import models as models_api
from supersimplenet.station.api import registry as registry_api
from supersimplenet.station.api import results as results_api
from supersimplenet.station.api import reviews as reviews_api
from supersimplenet.station.api import thresholds as thresholds_api
from supersimplenet.station.api.intake import Intake
from supersimplenet.station.problems import add_problem_handlers
from supersimplenet.station.station import Station
from supersimplenet.utils.version import __version__


def build_app(station: Station) -> FastAPI:
    """Return the application of a station; it closes the station when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        station.watch_from(asyncio.get_running_loop())
        yield
        await asyncio.to_thread(station.close)

    config = station.config
    app = FastAPI(
        title="SuperSimpleNet station",
        description="Inspects pictures of parts, keeps the results and shows them.",
        version=__version__,
        openapi_url="/v1/openapi.json",
        docs_url=None,  # both load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.station = station
    app.state.intake = Intake(config)
    app.state.access = Guard(station.engine, tls=config.is_https, is_local=config.is_local, hosts=config.public_hosts)
    add_problem_handlers(app)
    for router in (
        access_api.router,
        inspection_api.router,
        results_api.router,
        reviews_api.router,
        models_api.router,
        registry_api.router,
        datasets_api.router,
        thresholds_api.router,
        pages.router,
    ):
        app.include_router(router)
    pages.mount_assets(app)
    return app
