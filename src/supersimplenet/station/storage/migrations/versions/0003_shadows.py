"""What candidates say about pictures that another model inspected."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.create_table(
        "shadows",
        sa.Column("model", sa.Integer(), autoincrement=False, nullable=False, comment="number in the registry"),
        sa.Column("result", sa.String(length=32), nullable=False, comment="the picture of this result was predicted"),
        sa.Column(
            "verdict",
            sa.String(length=8),
            nullable=True,
            comment="of the model; NULL: it could not predict the picture",
        ),
        sa.Column("score_logit", sa.Float(precision=53), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model", "result", name=op.f("pk_shadows")),
    )
