"""What Feast's own client, unmodified, gets from Kedge.

usage: check.py URL

The server has the views of repo.py, and rows for the drivers 1001 (fresh) and
1002 (older than the view's ttl).
"""

import os
import sys
import tempfile
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
from feast import FeatureStore, RepoConfig, errors

import repo

URL = sys.argv.pop(1)


def store(registry: Path) -> FeatureStore:
    return FeatureStore(
        config=RepoConfig(
            project="demo",
            provider="local",
            registry=str(registry),
            online_store={"type": "remote", "path": URL, "cert": os.environ.get("CA", "")},
            auth={"type": "oidc", "token_env_var": "TOKEN"} if os.environ.get("TOKEN") else None,
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
        )
    )


class ByName(unittest.TestCase):
    """A client that knows nothing but names: its registry file is empty."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.store = store(Path(folder.name) / "registry.db")

    def read(self, features, rows, **more):
        return self.store.get_online_features(features=features, entity_rows=rows, **more).to_dict()

    def test_values_and_types(self):
        got = self.read(
            ["drv_fv:f64", "drv_fv:i64", "drv_fv:li", "drv_fv:s", "drv_fv:b", "drv_fv:f32", "drv_fv:whole"],
            [{"driver_id": 1001}, {"driver_id": 99}],
        )
        self.assertEqual(got["driver_id"], [1001, 99])
        self.assertEqual(got["f64"], [0.1, None])
        self.assertEqual(got["i64"], [2**53 + 1, None])
        self.assertEqual(got["li"], [[1, 2], None])
        self.assertEqual(got["s"], ["a", None])
        self.assertEqual(got["b"], [True, None])
        self.assertEqual(got["whole"], [7.0, None])
        self.assertIsInstance(got["whole"][0], float)

    def test_older_than_ttl_is_withheld(self):
        self.assertEqual(self.read(["drv_fv:f64"], [{"driver_id": 1002}])["f64"], [None])

    def test_full_names_and_composite_keys(self):
        got = self.read(
            ["drv_fv:f64", "pair_fv:f64"],
            [{"driver_id": 1001, "customer_id": "c1"}],
            full_feature_names=True,
        )
        self.assertEqual(got["drv_fv__f64"], [0.1])
        self.assertEqual(got["pair_fv__f64"], [7.0])

    def test_errors_raise_their_class_with_our_text(self):
        row = [{"driver_id": 1001}]
        for features, rows, cls, text in [
            (["nope:f64"], row, errors.FeatureViewNotFoundException, "nope does not exist"),
            (["drv_fv:nope"], row, errors.FeastError, "Feature nope not found"),
            (["drv_fv:f64"], [{"driver_id": "abc"}], errors.FeastError, "driver_id in row 0"),
            (["pair_fv:f64"], row, errors.FeastError, "Missing join key values for keys: ['customer_id']"),
            (
                ["drv_fv:f64", "pair_fv:f64"],
                [{"driver_id": 1001, "customer_id": "c1"}],
                errors.FeatureNameCollisionError,
                "Duplicate features named f64",
            ),
        ]:
            with self.subTest(features=features), self.assertRaises(cls) as caught:
                self.read(features, rows)
            self.assertIn(text, str(caught.exception))


class WithRegistry(unittest.TestCase):
    """A client with a registry of its own: services, push and write."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.store = store(Path(cls.folder.name) / "registry.db")
        cls.store.apply(repo.objects(cls.folder.name))

    def test_feature_service(self):
        got = self.store.get_online_features(
            features=self.store.get_feature_service("svc"),
            entity_rows=[{"driver_id": 1001, "customer_id": "c1"}],
        ).to_dict()
        self.assertEqual((got["f64"], got["rating"]), ([0.1], [4.5]))

    def pair(self, driver, at, f64):
        return pd.DataFrame(
            {"driver_id": [driver], "customer_id": ["z"], "f64": [f64], "rating": [2.0], "event_timestamp": [at]}
        )

    def rating(self, driver):
        return self.store.get_online_features(
            features=["pair_fv:f64"], entity_rows=[{"driver_id": driver, "customer_id": "z"}]
        ).to_dict()["f64"]

    def test_push_is_readable_and_late_data_does_not_win(self):
        now = datetime.now(timezone.utc)
        self.store.push("pair_push", self.pair(71, now, 1.5))
        self.assertEqual(self.rating(71), [1.5])
        self.store.push("pair_push", self.pair(71, now - timedelta(hours=5), -1.0))
        self.assertEqual(self.rating(71), [1.5])

    def test_write_to_online_store(self):
        self.store.write_to_online_store("pair_fv", self.pair(72, datetime.now(timezone.utc), 2.5))
        self.assertEqual(self.rating(72), [2.5])

    def test_a_bad_time_is_an_error_that_says_so(self):
        far = datetime.now(timezone.utc) + timedelta(days=40_000)  # beyond what any installation allows
        with self.assertRaises(errors.FeastError) as caught:
            self.store.write_to_online_store("pair_fv", self.pair(73, far, 2.5))
        self.assertIn("ahead of the server's clock", str(caught.exception))


if __name__ == "__main__":
    unittest.main(verbosity=2)
