"""Writes events.json: envelopes as Python's protobuf library encodes them, each
beside the JSON envelope that means the same.

  KEDGE_WRITE_DESCRIPTORS=/tmp/events.ds go test ./event -run TestProtobufGolden
  .deps/python/oip/bin/python event/testdata/events.py /tmp/events.ds > event/testdata/events.json
"""

import json
import sys

import google.protobuf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

files = descriptor_pb2.FileDescriptorSet.FromString(open(sys.argv[1], "rb").read())
pool = descriptor_pool.DescriptorPool()
for f in files.file:
    pool.Add(f)
Event = message_factory.GetMessageClass(pool.FindMessageTypeByName("kedge.v1.Event"))

AT, WHEN = 1772366400_000000, "2026-03-01T12:00:00Z"
cases = []


def case(kind, event, envelope, framed=False):
    data = event.SerializeToString()
    if framed:
        data = bytes([0, 0, 0, 0, 42, 0]) + data
    cases.append({"kind": kind, "hex": data.hex(), "json": envelope})


e = Event()
e.features.view = "driver"
e.features.key["driver_id"].int = 7
e.features.event_time_us = AT
e.features.values["rating"].float = 4.5
e.features.values["city"].string = "Kraków \"old\" town"
e.features.values["active"].bool = True
e.features.values["trips"].int = 2**63 - 1
e.features.values["tags"].list.items.add().string = "a"
e.features.values["tags"].list.items.add()
e.features.values["none"].SetInParent()
e.features.id = "e1"
driver = {"view": "driver", "key": {"driver_id": 7}, "event_time": WHEN, "id": "e1", "values": {
    "rating": 4.5, "city": "Kraków \"old\" town", "active": True, "trips": 2**63 - 1, "tags": ["a", None], "none": None}}
case("features", e, driver)
case("features", e, driver, framed=True)

e = Event()
e.features.view = "driver"
e.features.key["driver_id"].int = 7
e.features.event_time_us = AT
e.features.known_at_us = AT - 1
e.features.delete = True
case("features", e, {"view": "driver", "key": {"driver_id": 7}, "event_time": WHEN, "known_at": "2026-03-01T11:59:59.999999Z", "delete": True})

e = Event()
p = e.prediction
p.model, p.version, p.id, p.event_time_us = "fraud", "3", "p-1", AT
p.inputs["amount"].float = float("nan")
p.inputs["count"].int = 0
p.output.score = 0.0
p.output.scores["yes"] = 0.25
p.output.vector.extend([0.5, float("-inf")])
p.segments["country"] = ""
p.latency.queue = 0.125
p.threshold = 0.0
p.weight = 2
case("predictions", e, {"model": "fraud", "version": "3", "id": "p-1", "event_time": WHEN, "inputs": {"amount": "NaN", "count": 0},
     "output": {"score": 0.0, "scores": {"yes": 0.25}, "vector": [0.5, "-Infinity"]}, "segments": {"country": ""},
     "latency": {"queue": 0.125}, "threshold": 0.0, "weight": 2})

for value, label in ((1.0, 1.0), ("chargeback", "chargeback"), (None, None)):
    e = Event()
    e.label.model, e.label.prediction_id, e.label.event_time_us = "fraud", "p-1", AT
    e.label.label.SetInParent()
    if isinstance(value, float):
        e.label.label.float = value
    elif value:
        e.label.label.string = value
    case("labels", e, {"model": "fraud", "prediction_id": "p-1", "event_time": WHEN, "label": label})

json.dump({"about": "written by protobuf's Python library " + google.protobuf.__version__, "cases": cases}, sys.stdout, indent=1, ensure_ascii=False)
print()
