"""A table of a dataset as pandas sees it, read by column when it is asked for. Knows no files."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import pandas as pd
import pyarrow as pa

# Reads columns of the table, all rows or the first ones.
Read = Callable[[list[str], int | None], pa.Table]


class Frame:
    """A table that is used as a DataFrame is, but reads only the columns that are named.

    ``frame["label"]`` and ``frame[["label", "split"]]`` read these columns, ``len(frame)``, ``frame.columns`` and
    ``frame.head()`` hardly anything. Whatever else a DataFrame can do reads all columns, once. pandas' own functions
    (``pd.merge``, ``pd.concat``) take ``frame.frame()``.

    Args:
        read: Reads columns.
        columns: Names of the columns.
        length: Number of rows.
    """

    def __init__(self, read: Read, columns: list[str], length: int) -> None:
        self._read, self._columns, self._length = read, columns, length

    @cached_property
    def _whole(self) -> pd.DataFrame:
        return to_pandas(self._read(self._columns, None))

    def frame(self) -> pd.DataFrame:
        """All columns, as a DataFrame."""
        return self._whole

    def head(self, n: int = 5) -> pd.DataFrame:
        """The first rows."""
        return to_pandas(self._read(self._columns, n))

    @property
    def columns(self) -> pd.Index:
        """Names of the columns."""
        return pd.Index(self._columns)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._length, len(self._columns)

    def __len__(self) -> int:
        """Number of rows."""
        return self._length

    def __iter__(self) -> Iterator[str]:
        """Names of the columns."""
        return iter(self._columns)

    def __contains__(self, column: object) -> bool:
        """Whether there is such a column."""
        return column in self._columns

    def __getitem__(self, key: Any) -> Any:
        """A column, a list of columns, or what a DataFrame gives."""
        columns = [key] if isinstance(key, str) else key
        named = isinstance(columns, list) and columns and all(isinstance(name, str) for name in columns)
        if "_whole" in self.__dict__ or not named or any(name not in self._columns for name in columns):
            return self._whole[key]
        frame = to_pandas(self._read(columns, None))
        return frame[key] if isinstance(key, str) else frame

    def __getattr__(self, name: str) -> Any:
        """A column, or what a DataFrame has."""
        if name.startswith("__") or name in ("_columns", "_read", "_length"):
            raise AttributeError(name)
        return self[name] if name in self._columns else getattr(self._whole, name)

    def __dir__(self) -> list[str]:
        """Names of a DataFrame and of the columns."""
        return sorted({*object.__dir__(self), *dir(pd.DataFrame), *self._columns})

    def __repr__(self) -> str:
        """The first rows, and how many there are."""
        return f"{self.head()}\n[{self._length} rows x {len(self._columns)} columns]"

    def _repr_html_(self) -> str:
        return f"{self.head().to_html()}<p>{self._length} rows x {len(self._columns)} columns</p>"


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """A DataFrame of an Arrow table; lists stay Arrow lists."""
    return table.to_pandas(types_mapper=_list_type, split_blocks=True)


def _list_type(kind: pa.DataType) -> pd.ArrowDtype | None:
    return pd.ArrowDtype(kind) if pa.types.is_list(kind) else None
