"""The definitions of the demo, as Feast has them."""

from datetime import timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, Bool, Float32, Float64, Int64, String


def objects(folder):
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
    path = Path(folder) / "empty.parquet"
    pd.DataFrame({"event_timestamp": pd.to_datetime([], utc=True)}).to_parquet(path)
    file = FileSource(path=str(path), timestamp_field="event_timestamp")
    drivers = FeatureView(
        name="drv_fv",
        entities=[driver],
        ttl=timedelta(hours=1),
        schema=[
            Field(name="driver_id", dtype=Int64),
            Field(name="f64", dtype=Float64),
            Field(name="i64", dtype=Int64),
            Field(name="li", dtype=Array(Int64)),
            Field(name="s", dtype=String),
            Field(name="b", dtype=Bool),
            Field(name="f32", dtype=Float32),
            Field(name="whole", dtype=Float64),
        ],
        source=file,
    )
    pairs = FeatureView(
        name="pair_fv",
        entities=[driver, customer],
        ttl=timedelta(0),
        schema=[
            Field(name="driver_id", dtype=Int64),
            Field(name="customer_id", dtype=String),
            Field(name="f64", dtype=Float64),
            Field(name="rating", dtype=Float64),
        ],
        source=PushSource(name="pair_push", batch_source=file),
    )
    service = FeatureService(name="svc", features=[drivers[["f64", "i64"]], pairs[["rating"]]])
    return [driver, customer, drivers, pairs, service]
