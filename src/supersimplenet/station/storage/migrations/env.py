"""Alembic's environment: runs the migrations on the connection that `open_database` holds."""

from __future__ import annotations

from alembic import context

from supersimplenet.station.storage.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
