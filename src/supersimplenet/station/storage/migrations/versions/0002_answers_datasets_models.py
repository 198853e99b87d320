"""Answers of several people to a result; datasets with versions; models, their promotions, rules of training."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.create_table(
        "answers",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("result", sa.String(length=32), nullable=False),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("answer", sa.String(length=8), nullable=True, comment="NULL: taken back"),
        sa.Column("defect", sa.String(length=100), nullable=True, comment="kind of the defect"),
        sa.Column("mask", sa.String(length=64), nullable=True, comment="SHA-256 of the mask's file"),
        sa.Column("asked", sa.String(length=16), nullable=True, comment="why the review queue had asked"),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_answers")),
    )
    with op.batch_alter_table("answers", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_answers_result"), ["result"], unique=False)

    op.create_table(
        "datasets",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_datasets")),
    )
    op.create_table(
        "entries",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("dataset", sa.String(length=100), nullable=False),
        sa.Column("picture", sa.String(length=64), nullable=False),
        sa.Column("label", sa.String(length=4), nullable=False, comment="good or bad"),
        sa.Column("defect", sa.String(length=100), nullable=True, comment="kind of the defect"),
        sa.Column("mask", sa.String(length=64), nullable=True, comment="SHA-256 of the mask's file"),
        sa.Column("since", sa.Integer(), nullable=False, comment="first version that holds it"),
        sa.Column("until", sa.Integer(), nullable=True, comment="first version that does not hold it any more"),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_entries")),
    )
    with op.batch_alter_table("entries", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_entries_dataset_picture"), ["dataset", "picture"], unique=False)

    op.create_table(
        "pictures",
        sa.Column("sha256", sa.String(length=64), nullable=False, comment="of the picture's bytes"),
        sa.Column(
            "pixels",
            sa.String(length=64),
            nullable=False,
            comment="digest of its pixels: copies in another format are the same",
        ),
        sa.Column("kind", sa.String(length=8), nullable=False, comment="suffix of the picture's file"),
        sa.Column("size", sa.BigInteger(), nullable=False, comment="bytes"),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False, comment="its name when it first came"),
        sa.Column("group", sa.String(length=600), nullable=False, comment="the part that it shows"),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_pictures")),
    )
    with op.batch_alter_table("pictures", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_pictures_group"), ["group"], unique=False)
        batch_op.create_index(batch_op.f("ix_pictures_pixels"), ["pixels"], unique=False)

    op.create_table(
        "promotions",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("product", sa.String(length=200), nullable=False),
        sa.Column("model", sa.Integer(), nullable=False, comment="number in the registry: from here on in use"),
        sa.Column("is_rollback", sa.Boolean(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_promotions")),
    )
    with op.batch_alter_table("promotions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_promotions_product"), ["product"], unique=False)

    op.create_table(
        "registry",
        sa.Column(
            "number", sa.Integer(), autoincrement=True, nullable=False, comment="of the model; also its folder's name"
        ),
        sa.Column("product", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False, comment="see `StateName`"),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("parent", sa.Integer(), nullable=True, comment="the model that was in use when it was begun"),
        sa.Column("dataset", sa.String(length=100), nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=True, comment="of that version of the dataset"),
        sa.Column("options", sa.JSON(), nullable=False, comment="with which it was trained"),
        sa.Column(
            "found", sa.JSON(), nullable=False, comment="guarantee, and what the comparison with its parent found"
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_registry")),
    )
    with op.batch_alter_table("registry", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_registry_product"), ["product"], unique=False)

    op.create_table(
        "roles",
        sa.Column("group", sa.String(length=600), nullable=False, comment="a part"),
        sa.Column(
            "role", sa.String(length=16), nullable=False, comment="train, calibration or golden; it never changes"
        ),
        sa.Column(
            "stratum", sa.String(length=200), nullable=False, comment="good, or the kind of defect, when it came"
        ),
        sa.Column(
            "place",
            sa.Integer(),
            nullable=True,
            comment="its number in the stratum, from 0; NULL where it was told its role",
        ),
        sa.PrimaryKeyConstraint("group", name=op.f("pk_roles")),
        sa.UniqueConstraint("stratum", "place", name=op.f("uq_roles_stratum_place")),
    )
    op.create_table(
        "training_rules",
        sa.Column("product", sa.String(length=200), nullable=False),
        sa.Column(
            "dataset",
            sa.String(length=100),
            nullable=False,
            comment="that answers are gathered into, and a training begins with",
        ),
        sa.Column("answers", sa.Integer(), nullable=True, comment="new answers after which it trains; NULL for never"),
        sa.Column(
            "daily_at", sa.String(length=5), nullable=True, comment="time of day at the station, HH:MM; NULL for never"
        ),
        sa.Column("time_budget", sa.String(length=20), nullable=False),
        sa.Column(
            "promote_margin", sa.Float(precision=53), nullable=True, comment="share; NULL: it puts nothing to use"
        ),
        sa.Column("promote_differing", sa.Float(precision=53), nullable=True, comment="share; NULL for any"),
        sa.Column("set_by", sa.String(length=200), nullable=False),
        sa.Column("set_at", sa.BigInteger(), nullable=False),
        sa.Column(
            "tried_at", sa.BigInteger(), nullable=False, comment="when it last applied; until then answers are not new"
        ),
        sa.Column("problem", sa.Text(), nullable=True, comment="why it could not train then"),
        sa.PrimaryKeyConstraint("product", name=op.f("pk_training_rules")),
    )
    op.create_table(
        "versions",
        sa.Column("dataset", sa.String(length=100), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False, comment="from 1"),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("why", sa.Text(), nullable=False, comment="in words"),
        sa.Column("added", sa.Integer(), nullable=False),
        sa.Column("changed", sa.Integer(), nullable=False),
        sa.Column("removed", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False, comment="SHA-256 of all that the version holds"),
        sa.PrimaryKeyConstraint("dataset", "number", name=op.f("pk_versions")),
    )
    with op.batch_alter_table("results", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("review_defect", sa.String(length=100), nullable=True, comment="kind of the defect")
        )
        batch_op.add_column(
            sa.Column("review_mask", sa.String(length=64), nullable=True, comment="SHA-256 of the mask's file")
        )
    op.execute(  # reviews until now are the first answers
        "INSERT INTO answers (result, who, at, answer) SELECT id, reviewed_by, reviewed_at, review FROM results "
        "WHERE review IS NOT NULL ORDER BY reviewed_at"
    )
