"""The repository that both servers have."""

from datetime import timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp

path = Path(__file__).parent / "empty.parquet"
with_created = FileSource(name="with_created", path=str(path), timestamp_field="event_timestamp", created_timestamp_column="created")
without = FileSource(name="without", path=str(path), timestamp_field="event_timestamp")

# A file that `materialize` can read, and finds nothing in.
COLUMNS = {"driver_id": "int64", "customer_id": "str", "rating": "float64", "n": "int64", "i32": "int32", "i64": "int64", "f32": "float32", "f64": "float64"}
empty = pd.DataFrame({n: pd.Series(dtype=t) for n, t in COLUMNS.items()} | {n: pd.Series(dtype="object") for n in ("s", "b", "li", "ls", "lf", "lb", "by")})
for n in ("event_timestamp", "created", "ts"):
    empty[n] = pd.to_datetime([], utc=True)
empty.to_parquet(path)

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)

TYPES = {
    "i32": Int32,
    "i64": Int64,
    "f32": Float32,
    "f64": Float64,
    "s": String,
    "b": Bool,
    "ts": UnixTimestamp,
    "li": Array(Int64),
    "ls": Array(String),
    "lf": Array(Float64),
    "lb": Array(Bool),
    "by": Bytes,
}

wide = FeatureView(
    name="wide",
    entities=[driver],
    ttl=timedelta(hours=1),
    schema=[Field(name="driver_id", dtype=Int64)] + [Field(name=n, dtype=t) for n, t in TYPES.items()],
    source=PushSource(name="wide_push", batch_source=with_created),
)
pair = FeatureView(
    name="pair",
    entities=[driver, customer],
    ttl=timedelta(0),
    schema=[Field(name="driver_id", dtype=Int64), Field(name="customer_id", dtype=String)]
    + [Field(name="f64", dtype=Float64), Field(name="rating", dtype=Float64), Field(name="n", dtype=Int64)],
    source=PushSource(name="pair_push", batch_source=without),
)
amount = RequestSource(name="amount", schema=[Field(name="amount", dtype=Float64)])


@on_demand_feature_view(sources=[wide, amount], schema=[Field(name="scaled", dtype=Float64)], mode="python")
def odfv(inputs):
    return {"scaled": [None if f is None else f * a for f, a in zip(inputs["f64"], inputs["amount"])]}


svc = FeatureService(name="svc", features=[wide[["i64", "s"]], pair[["rating"]]])
all_wide = FeatureService(name="all_wide", features=[wide])
