"""Drives the embedded broker with librdkafka, as kcat does.

usage: client.py HOST_PORT NAMESPACE
TOKEN, CA and OTHER (a key of another namespace) are set where it is closed.
"""
import datetime
import json
import os
import sys
import uuid

import confluent_kafka as ck
from confluent_kafka import KafkaError, KafkaException

BROKER, NAMESPACE = sys.argv[1:3]
TOKEN, CA, OTHER = (os.environ.get(n, "") for n in ("TOKEN", "CA", "OTHER"))
TOPIC = f"kedge.{NAMESPACE}.features"
WAIT = 20
NOW = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def check(name, ok, why=""):
    print("ok:" if ok else "FAILED:", name, "" if ok else why, flush=True)
    if not ok:
        sys.exit(1)


def config(token=TOKEN, **more):
    c = {"bootstrap.servers": BROKER, "client.id": "kcat", "socket.timeout.ms": 5000, "log_level": 0}
    if TOKEN:
        c |= {"security.protocol": "SASL_SSL", "ssl.ca.location": CA, "sasl.mechanism": "PLAIN", "sasl.username": "ride-service", "sasl.password": token}
    return c | {k.replace("_", "."): v for k, v in more.items()}


def produce(topic, values, **more):
    """The errors with which records of a topic were answered."""
    p, errors = ck.Producer(config(message_timeout_ms=15000, **more)), []
    for v in values:
        p.produce(topic, key=b"k", value=v, on_delivery=lambda e, m: errors.append(e))
    left = p.flush(WAIT)
    return errors + ["not answered"] * left


def consume(topic, group, want, **more):
    c = ck.Consumer(config(group_id=group, auto_offset_reset="earliest", enable_auto_commit=False, **more))
    c.subscribe([topic])
    got, problem = [], None
    for _ in range(WAIT * 10):
        m = c.poll(0.1)
        if m is None:
            continue
        if m.error():
            problem = m.error()
            break
        got.append(m.value())
        if len(got) >= want:
            c.commit(asynchronous=False)
            break
    c.close()
    return got, problem


def topics(**more):
    """What a client that asks for everything is shown; the error's code otherwise."""
    errors = []
    c = ck.Consumer(config(group_id=f"{NAMESPACE}.look", **more) | {"error_cb": errors.append})
    try:
        return sorted(c.list_topics(timeout=6).topics), errors
    except KafkaException as e:
        return None, errors + [e.args[0]]
    finally:
        c.close()


run = uuid.uuid4().hex
events = [json.dumps({"view": "ride", "key": {"ride_id": f"ride-{i}"}, "event_time": NOW, "values": {"fare": i + 0.5, "run": run}}).encode() for i in range(20)]
found, _ = topics()
check("metadata", found is not None and TOPIC in found, found)
for name, more in {"a plain producer": {}, "an idempotent one": {"enable_idempotence": True}, "zstd": {"compression_type": "zstd"}, "lz4": {"compression_type": "lz4"}, "snappy": {"compression_type": "snappy"}, "gzip": {"compression_type": "gzip"}}.items():
    got = produce(TOPIC, events, **more)
    check(f"{name} is answered for each record", got == [None] * len(events), got)
got, problem = consume(TOPIC, f"{NAMESPACE}.kcat", 6 * len(events))
check("a group reads them back", len(got) == 6 * len(events) and set(got) == set(events), problem or len(got))
if not TOKEN:
    sys.exit()

check("it is shown its own topics alone", all(t.startswith(f"kedge.{NAMESPACE}.") for t in found), found)
for name, more in {
    "no TLS": {"security_protocol": "PLAINTEXT"},
    "TLS without a key": {"security_protocol": "SSL"},
    "a key without TLS": {"security_protocol": "SASL_PLAINTEXT"},
    "SCRAM": {"sasl_mechanism": "SCRAM-SHA-256"},
    "a wrong key": {"token": TOKEN[:-4] + ("aaaa" if TOKEN[-4:] != "aaaa" else "bbbb")},
}.items():
    seen, errors = topics(**more)
    check(f"{name} opens nothing", seen is None and errors, seen)
theirs, _ = topics(token=OTHER)
check("another namespace's key is not shown these", theirs is not None and TOPIC not in theirs, theirs)
errors = produce(TOPIC, events[:1], token=OTHER)
check("nor produces to them", errors and all(e is not None for e in errors), errors)
got, problem = consume(TOPIC, "aside.kcat", 1, token=OTHER)
check("nor reads them", not got and problem is not None, (got, problem))
check("it is told that there is no such topic, or that it may not", problem.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError.GROUP_AUTHORIZATION_FAILED), problem)
got, problem = consume(TOPIC, "aside.kcat", 1)
check("a group of another namespace is closed", not got and problem is not None, (got, problem))
