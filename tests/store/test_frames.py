import pandas as pd
import pyarrow as pa
import pytest

from medglip import store
from medglip.store.frames import Frame


@pytest.fixture
def asked():
    return []


@pytest.fixture
def frame(asked):
    table = pa.table({"a": [1, 2, 3], "b": ["x", "y", "x"], "c": [[1], [], [2, 3]]})

    def read(columns, rows):
        asked.append((tuple(columns), rows))
        return table.select(columns).slice(0, rows)

    return Frame(read, table.column_names, table.num_rows)


def test_only_the_columns_that_are_named_are_read(frame, asked):
    assert frame["a"].tolist() == frame.a.tolist() == [1, 2, 3]
    assert list(frame[["b", "a"]].columns) == ["b", "a"]
    assert len(frame) == 3
    assert frame.shape == (3, 3)
    assert list(frame) == list(frame.columns) == ["a", "b", "c"]
    assert "a" in frame
    assert "z" not in frame
    assert len(frame.head(2)) == 2
    assert "[3 rows x 3 columns]" in repr(frame)
    assert "3 rows" in frame._repr_html_()
    assert {columns for columns, rows in asked if rows is None} == {("a",), ("b", "a")}
    assert max(rows for _, rows in asked if rows is not None) == 5


def test_whatever_a_dataframe_does_is_done_on_all_columns_read_once(frame, asked):
    assert frame.query("a > 1")["b"].tolist() == ["y", "x"]
    assert frame.groupby("b")["a"].sum().to_dict() == {"x": 4, "y": 2}
    assert frame[frame["a"] > 1].shape == (2, 3)
    assert list(frame.iloc[2]["c"]) == [2, 3]
    assert [row.a for row in frame.itertuples()] == [1, 2, 3]
    assert [columns for columns, _ in asked].count(("a", "b", "c")) == 1
    assert isinstance(frame.frame(), pd.DataFrame)
    with pytest.raises(KeyError):
        frame["z"]
    with pytest.raises(AttributeError):
        _ = frame.nothing


def test_a_dataset_gives_frames_whose_columns_are_those_of_the_whole_table(dataset_path):
    dataset = store.open(dataset_path)
    for name in ("images", "regions", "texts", "volumes", "rejects"):
        whole, lazy = dataset.table(name), getattr(dataset, name)
        assert list(lazy.columns) == list(whole.columns)
        assert len(lazy) == len(whole)
        for column in whole.columns:
            pd.testing.assert_series_equal(lazy[column], whole[column])
        pd.testing.assert_frame_equal(lazy.head(2), whole.head(2), check_dtype=False)  # no null, no float
        pd.testing.assert_frame_equal(lazy.frame(), whole)
