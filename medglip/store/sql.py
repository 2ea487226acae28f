"""SQL over the tables of datasets, through DuckDB. Knows nothing of what the columns mean."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from medglip.errors import DatasetError
from medglip.store.manifest import table_files
from medglip.store.place import Place
from medglip.store.schema import ADDED, SCHEMAS, TABLES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@contextmanager
def connected(
    datasets: Mapping[str, tuple[Place, dict[str, Any]]], tables: tuple[str, ...] = TABLES
) -> Iterator["DuckDBPyConnection"]:
    """A connection that has the tables of datasets as views.

    Args:
        datasets: What begins the views' names (``""``: ``images``; ``"a_"``: ``a_images``) -> place and manifest.
        tables: The tables that are needed; only their files are looked at.

    Raises:
        DatasetError: a file of a table is missing or broken.
    """
    import duckdb

    with duckdb.connect() as connection:
        with suppress(duckdb.Error):  # in a notebook without ipywidgets there is no bar, and DuckDB says so by an error
            connection.execute("SET enable_progress_bar = false")
        for prefix, (place, manifest) in datasets.items():
            if place.local is None:
                connection.register_filesystem(place.system)
            for name in tables:
                paths = [place.sql_name(file) for file in table_files(manifest, name)]
                files = ", ".join(f"'{path.replace(chr(39), chr(39) * 2)}'" for path in paths)
                try:
                    if files:
                        connection.execute(f"CREATE VIEW {prefix}{name} AS {_selected(name, files)}")
                    else:
                        connection.register(f"{prefix}{name}", SCHEMAS[name].empty_table())
                except duckdb.Error as error:
                    what = str(error).partition("\n")[0]
                    raise DatasetError(
                        f"Dataset {place.name!r}: its {name} cannot be read ({what}); run `medglip validate`, and"
                        " restore the file or convert again."
                    ) from error
        yield connection


def _selected(table: str, files: str) -> str:
    """The query that reads files of a table; a file that is too old for a column holds its default."""
    late = ADDED.get(table)
    if late is None:
        return f"SELECT * FROM read_parquet([{files}])"
    nulls = ", ".join(f"NULL::VARCHAR AS {column}" for column in late)
    values = ", ".join(f"coalesce({column}, '{value}') AS {column}" for column, value in late.items())
    return (
        f"SELECT * REPLACE ({values}) FROM (SELECT * FROM read_parquet([{files}], union_by_name = true)"
        f" UNION ALL BY NAME SELECT {nulls} WHERE false)"
    )
