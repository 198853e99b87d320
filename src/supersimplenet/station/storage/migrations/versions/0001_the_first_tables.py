"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.create_table(
        "aliases",
        sa.Column(
            "id",
            sa.String(length=32),
            nullable=False,
            comment="an id that was answered to a repeat while the database was away",
        ),
        sa.Column("result", sa.String(length=32), nullable=False, comment="id of the first result of its key"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_aliases")),
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("what", sa.String(length=100), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False, comment="hash of the entry before"),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit")),
        sa.UniqueConstraint("previous", name=op.f("uq_audit_previous")),
    )
    op.create_table(
        "drift",
        sa.Column("product", sa.String(length=200), nullable=False),
        sa.Column(
            "state", sa.JSON(), nullable=False, comment="of the tests of drift: what came until now, and the bets"
        ),
        sa.Column("saved_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("product", name=op.f("pk_drift")),
    )
    op.create_table(
        "models",
        sa.Column("id", sa.String(length=64), nullable=False, comment="see `LoadedModel.id`"),
        sa.Column("product", sa.String(length=200), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("loaded_at", sa.BigInteger(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False, comment="hashes, engine, versions, calibration: what decided"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
    )
    op.create_table(
        "outbox",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
            comment="the order of delivery",
        ),
        sa.Column("sink", sa.String(length=100), nullable=False),
        sa.Column(
            "result", sa.String(length=32), nullable=False, comment="id of a result that the sink does not have yet"
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_outbox")),
    )
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_outbox_sink_number"), ["sink", "number"], unique=False)
        batch_op.create_index(batch_op.f("ix_outbox_sink_result"), ["sink", "result"], unique=False)

    op.create_table(
        "results",
        sa.Column("id", sa.String(length=32), nullable=False, comment="rises with time; see `Ids`"),
        sa.Column(
            "key", sa.String(length=200), nullable=True, comment="the sender's own id, by which repeats are known"
        ),
        sa.Column("taken_at", sa.BigInteger(), nullable=False),
        sa.Column("product", sa.String(length=200), nullable=False),
        sa.Column("source", sa.String(length=200), nullable=False),
        sa.Column("name", sa.Text(), nullable=False, comment="the picture's name as sent; never a path here"),
        sa.Column("part", sa.String(length=400), nullable=True),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("verdict", sa.String(length=8), nullable=True, comment="NULL: it could not be inspected; see `row`"),
        sa.Column("score", sa.Float(precision=53), nullable=True),
        sa.Column("score_logit", sa.Float(precision=53), nullable=True),
        sa.Column("picture", sa.String(length=64), nullable=False, comment="SHA-256 of the picture's bytes"),
        sa.Column("kind", sa.String(length=8), nullable=False, comment="suffix of the picture's file"),
        sa.Column("size", sa.BigInteger(), nullable=False, comment="bytes of the picture"),
        sa.Column("kept", sa.Boolean(), nullable=False, comment="whether the picture is on the disk"),
        sa.Column("row", sa.JSON(), nullable=False, comment="the columns of a table of predictions"),
        sa.Column("review", sa.String(length=8), nullable=True, comment="what people say together: see `Opinion`"),
        sa.Column("reviewed_by", sa.String(length=200), nullable=True),
        sa.Column("reviewed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_results")),
        sa.UniqueConstraint("key", name=op.f("uq_results_key")),
    )
    with op.batch_alter_table("results", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_results_picture"), ["picture"], unique=False)
        batch_op.create_index(batch_op.f("ix_results_product_part"), ["product", "part"], unique=False)
        batch_op.create_index(batch_op.f("ix_results_product_taken_at"), ["product", "taken_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_results_taken_at"), ["taken_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_results_verdict_taken_at"), ["verdict", "taken_at"], unique=False)

    op.create_table(
        "sessions",
        sa.Column("id", sa.String(length=64), nullable=False, comment="SHA-256 of the cookie"),
        sa.Column("user", sa.String(length=200), nullable=False),
        sa.Column("csrf", sa.String(length=64), nullable=False),
        sa.Column("begun_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
    )
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sessions_user"), ["user"], unique=False)

    op.create_table(
        "thresholds",
        sa.Column("product", sa.String(length=200), nullable=False),
        sa.Column("base", sa.String(length=64), nullable=False, comment="id of the model as it was loaded"),
        sa.Column("threshold_logit", sa.Float(precision=53), nullable=False),
        sa.Column("set_by", sa.String(length=200), nullable=False),
        sa.Column("set_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("product", name=op.f("pk_thresholds")),
    )
    op.create_table(
        "tokens",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False, comment="SHA-256 of the token"),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_tokens_hash")),
    )
    op.create_table(
        "users",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False, comment="operator, engineer or admin"),
        sa.Column("password", sa.Text(), nullable=False, comment="Argon2 hash"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_users")),
    )
