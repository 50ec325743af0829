"""A Parquet table behind URLs gives the examples of the table, by range."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from written_formats import NUM, arrays, write_parquet

from distrain import formats
from distrain.errors import ConfigurationError, DataError

X, Y = arrays()


def test_a_table_in_an_object_store_is_read(store, tmp_path):
    url = store.put_folder(write_parquet(tmp_path), "flights")
    for paths in (url, f"{url}/*.parquet", [f"{url}/part-0.parquet", f"{url}/part-1.parquet"]):
        source = pickle.loads(pickle.dumps(formats.parquet(paths)))
        features, labels = source.read(0, NUM)
        np.testing.assert_array_equal(features, X)
        np.testing.assert_array_equal(labels, Y)
    with pytest.raises(DataError, match=r"s3://bucket/flights/\*\.csv fits no file"):
        formats.parquet(f"{url}/*.csv")
    with pytest.raises(ConfigurationError, match="HDF5 files are read from local disk alone"):
        formats.hdf5(f"{url}/a.h5")
