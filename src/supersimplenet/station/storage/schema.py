"""Tables of a station's database, the same on SQLite and PostgreSQL.

Times are milliseconds since 1970 in UTC. Structures are JSON. Alembic makes and changes the tables
(`supersimplenet.station.storage.migrations`); a test compares them with what stands here.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

# Names for all constraints, so that a later migration can name what it changes.
METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
_Counter = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up whole numbers of its own type alone

MODELS = Table(
    "models",
    METADATA,
    Column("id", String(64), primary_key=True, comment="see `LoadedModel.id`"),
    Column("product", String(200), nullable=False),
    Column("path", Text, nullable=False),
    Column("loaded_at", BigInteger, nullable=False),
    Column("facts", JSON, nullable=False, comment="hashes, engine, versions, calibration: what decided"),
)

RESULTS = Table(
    "results",
    METADATA,
    Column("id", String(32), primary_key=True, comment="rises with time; see `Ids`"),
    Column("key", String(200), nullable=True, unique=True, comment="the sender's own id, by which repeats are known"),
    Column("taken_at", BigInteger, nullable=False),
    Column("product", String(200), nullable=False),
    Column("source", String(200), nullable=False),
    Column("name", Text, nullable=False, comment="the picture's name as sent; never a path here"),
    Column("part", String(400), nullable=True),
    Column("model", String(64), nullable=False),
    Column("verdict", String(8), nullable=True, comment="NULL: it could not be inspected; see `row`"),
    Column("score", Float(53), nullable=True),
    Column("score_logit", Float(53), nullable=True),
    Column("picture", String(64), nullable=False, comment="SHA-256 of the picture's bytes"),
    Column("kind", String(8), nullable=False, comment="suffix of the picture's file"),
    Column("size", BigInteger, nullable=False, comment="bytes of the picture"),
    Column("kept", Boolean, nullable=False, comment="whether the picture is on the disk"),
    Column("row", JSON, nullable=False, comment="the columns of a table of predictions"),
    Column("review", String(8), nullable=True, comment="what people say together: see `Opinion`"),
    Column("reviewed_by", String(200), nullable=True),
    Column("reviewed_at", BigInteger, nullable=True),
    Column("review_defect", String(100), nullable=True, comment="kind of the defect"),
    Column("review_mask", String(64), nullable=True, comment="SHA-256 of the mask's file"),
    Index(None, "taken_at"),
    Index(None, "product", "taken_at"),
    Index(None, "verdict", "taken_at"),
    Index(None, "product", "part"),
    Index(None, "picture"),
)

ANSWERS = Table(
    "answers",
    METADATA,
    Column("number", _Counter, primary_key=True, autoincrement=True),
    Column("result", String(32), nullable=False),
    Column("who", String(200), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("answer", String(8), nullable=True, comment="NULL: taken back"),
    Column("defect", String(100), nullable=True, comment="kind of the defect"),
    Column("mask", String(64), nullable=True, comment="SHA-256 of the mask's file"),
    Column("asked", String(16), nullable=True, comment="why the review queue had asked"),
    Index(None, "result"),
)

ALIASES = Table(
    "aliases",
    METADATA,
    Column(
        "id", String(32), primary_key=True, comment="an id that was answered to a repeat while the database was away"
    ),
    Column("result", String(32), nullable=False, comment="id of the first result of its key"),
)

OUTBOX = Table(
    "outbox",
    METADATA,
    Column("number", _Counter, primary_key=True, autoincrement=True, comment="the order of delivery"),
    Column("sink", String(100), nullable=False),
    Column("result", String(32), nullable=False, comment="id of a result that the sink does not have yet"),
    Index(None, "sink", "number"),
    Index(None, "sink", "result"),
)

DRIFT = Table(
    "drift",
    METADATA,
    Column("product", String(200), primary_key=True),
    Column("state", JSON, nullable=False, comment="of the tests of drift: what came until now, and the bets"),
    Column("saved_at", BigInteger, nullable=False),
)

THRESHOLDS = Table(
    "thresholds",
    METADATA,
    Column("product", String(200), primary_key=True),
    Column("base", String(64), nullable=False, comment="id of the model as it was loaded"),
    Column("threshold_logit", Float(53), nullable=False),
    Column("set_by", String(200), nullable=False),
    Column("set_at", BigInteger, nullable=False),
)

PICTURES = Table(
    "pictures",
    METADATA,
    Column("sha256", String(64), primary_key=True, comment="of the picture's bytes"),
    Column("pixels", String(64), nullable=False, comment="digest of its pixels: copies in another format are the same"),
    Column("kind", String(8), nullable=False, comment="suffix of the picture's file"),
    Column("size", BigInteger, nullable=False, comment="bytes"),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("name", Text, nullable=False, comment="its name when it first came"),
    Column("group", String(600), nullable=False, comment="the part that it shows"),
    Column("added_at", BigInteger, nullable=False),
    Index(None, "pixels"),
    Index(None, "group"),
)

ROLES = Table(
    "roles",
    METADATA,
    Column("group", String(600), primary_key=True, comment="a part"),
    Column("role", String(16), nullable=False, comment="train, calibration or golden; it never changes"),
    Column("stratum", String(200), nullable=False, comment="good, or the kind of defect, when it came"),
    Column(
        "place", Integer, nullable=True, comment="its number in the stratum, from 0; NULL where it was told its role"
    ),
    UniqueConstraint("stratum", "place"),
)

DATASETS = Table(
    "datasets",
    METADATA,
    Column("name", String(100), primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(200), nullable=False),
)

VERSIONS = Table(
    "versions",
    METADATA,
    Column("dataset", String(100), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False, comment="from 1"),
    Column("at", BigInteger, nullable=False),
    Column("who", String(200), nullable=False),
    Column("why", Text, nullable=False, comment="in words"),
    Column("added", Integer, nullable=False),
    Column("changed", Integer, nullable=False),
    Column("removed", Integer, nullable=False),
    Column("digest", String(64), nullable=False, comment="SHA-256 of all that the version holds"),
)

ENTRIES = Table(
    "entries",
    METADATA,
    Column("number", _Counter, primary_key=True, autoincrement=True),
    Column("dataset", String(100), nullable=False),
    Column("picture", String(64), nullable=False),
    Column("label", String(4), nullable=False, comment="good or bad"),
    Column("defect", String(100), nullable=True, comment="kind of the defect"),
    Column("mask", String(64), nullable=True, comment="SHA-256 of the mask's file"),
    Column("since", Integer, nullable=False, comment="first version that holds it"),
    Column("until", Integer, nullable=True, comment="first version that does not hold it any more"),
    Index(None, "dataset", "picture"),
)

REGISTRY = Table(
    "registry",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True, comment="of the model; also its folder's name"),
    Column("product", String(200), nullable=False, index=True),
    Column("state", String(16), nullable=False, comment="see `StateName`"),
    Column("at", BigInteger, nullable=False),
    Column("who", String(200), nullable=False),
    Column("parent", Integer, nullable=True, comment="the model that was in use when it was begun"),
    Column("dataset", String(100), nullable=True),
    Column("version", Integer, nullable=True),
    Column("digest", String(64), nullable=True, comment="of that version of the dataset"),
    Column("options", JSON, nullable=False, comment="with which it was trained"),
    Column("found", JSON, nullable=False, comment="guarantee, and what the comparison with its parent found"),
)

PROMOTIONS = Table(
    "promotions",
    METADATA,
    Column("number", _Counter, primary_key=True, autoincrement=True),
    Column("product", String(200), nullable=False, index=True),
    Column("model", Integer, nullable=False, comment="number in the registry: from here on in use"),
    Column("is_rollback", Boolean, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("who", String(200), nullable=False),
    Column("why", Text, nullable=False),
)

SHADOWS = Table(
    "shadows",
    METADATA,
    Column("model", Integer, primary_key=True, autoincrement=False, comment="number in the registry"),
    Column("result", String(32), primary_key=True, comment="the picture of this result was predicted"),
    Column("verdict", String(8), nullable=True, comment="of the model; NULL: it could not predict the picture"),
    Column("score_logit", Float(53), nullable=True),
    Column("at", BigInteger, nullable=False),
)

TRAINING_RULES = Table(
    "training_rules",
    METADATA,
    Column("product", String(200), primary_key=True),
    Column(
        "dataset", String(100), nullable=False, comment="that answers are gathered into, and a training begins with"
    ),
    Column("answers", Integer, nullable=True, comment="new answers after which it trains; NULL for never"),
    Column("daily_at", String(5), nullable=True, comment="time of day at the station, HH:MM; NULL for never"),
    Column("time_budget", String(20), nullable=False),
    Column("promote_margin", Float(53), nullable=True, comment="share; NULL: it puts nothing to use"),
    Column("promote_differing", Float(53), nullable=True, comment="share; NULL for any"),
    Column("set_by", String(200), nullable=False),
    Column("set_at", BigInteger, nullable=False),
    Column("tried_at", BigInteger, nullable=False, comment="when it last applied; until then answers are not new"),
    Column("problem", Text, nullable=True, comment="why it could not train then"),
)

USERS = Table(
    "users",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("role", String(16), nullable=False, comment="operator, engineer or admin"),
    Column("password", Text, nullable=False, comment="Argon2 hash"),
    Column("created_at", BigInteger, nullable=False),
    Column("disabled", Boolean, nullable=False, default=False),
)

SESSIONS = Table(
    "sessions",
    METADATA,
    Column("id", String(64), primary_key=True, comment="SHA-256 of the cookie"),
    Column("user", String(200), nullable=False, index=True),
    Column("csrf", String(64), nullable=False),
    Column("begun_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)

TOKENS = Table(
    "tokens",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("hash", String(64), nullable=False, unique=True, comment="SHA-256 of the token"),
    Column("role", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

AUDIT = Table(
    "audit",
    METADATA,
    Column("number", _Counter, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("who", String(200), nullable=False),
    Column("what", String(100), nullable=False),
    Column("details", JSON, nullable=False),
    Column("previous", String(64), nullable=False, comment="hash of the entry before"),
    Column("hash", String(64), nullable=False),
    UniqueConstraint("previous"),  # two entries cannot follow the same one
)
