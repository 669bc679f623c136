"""A table of predictions as CSV, JSON lines or Parquet, written in chunks so that a stopped run can go on.

Beside `out.csv`, the folder `.out.csv.parts` holds `job.json`, which says what is being predicted, and a Parquet file
for each chunk of files that is done. They become the table at the end, in order. So neither the number of processes nor
a stop changes the table.
"""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..files import whole_file, write_json

CHUNK = 256  # files whose predictions are lost at most, for each process, when a run is stopped


class PredictionTable:
    """A table in the making.

    Args:
        output: the table's file.
        job: what must be the same when a stopped run goes on.

    Raises:
        ValueError: if the file's ending is none of the formats'.
    """

    def __init__(self, output: Path, job: dict[str, Any]) -> None:
        check_format(output, OBJECT_FORMATS if job.get("objects") else tuple(FORMATS))
        self.output, self.job = output, job
        self.parts = output.with_name(f".{output.name}.parts")

    def check(self) -> None:
        """Raise ValueError if a stopped run predicted something else, so that nothing of it is lost or mixed in."""
        if not (self.parts / "job.json").is_file():
            return
        before = json.loads((self.parts / "job.json").read_text(encoding="utf-8"))
        differing = next((key for key in self.job if self.job[key] != before.get(key)), None)
        if differing is not None:
            raise ValueError(
                f"{self.parts} holds part of another prediction, whose {differing} differed: repeat that command to"
                " finish it, remove the folder, or choose another --output."
            )

    def start(self) -> None:
        """Make the folder of the chunks, unless a stopped run left it."""
        self.parts.mkdir(parents=True, exist_ok=True)
        write_json(self.job, self.parts / "job.json")

    def missing_chunks(self, num_files: int) -> list[int]:
        """Return the numbers of the chunks that are still to be predicted."""
        return [chunk for chunk in range(-(-num_files // CHUNK)) if not self._part(chunk).is_file()]

    def write_chunk(self, chunk: int, rows: list[dict[str, Any]]) -> None:
        """Keep the rows of a chunk of files."""
        names = max((list(row) for row in rows), key=len)  # those of a readable image, if there is one
        columns = ["file", *(name for name in names if name not in ("file", "error")), "error"]
        data = {name: make_column(name, [row.get(name) for row in rows]) for name in columns}
        with whole_file(self._part(chunk)) as partial:
            pq.write_table(pa.table(data), partial)

    def finish(self, write: "Writer | None" = None) -> int:
        """Write the table from its chunks, remove them, and return how many of its images are unreadable.

        `write` does so in another form than the file's ending says.
        """
        parts = sorted(self.parts.glob("*.parquet"))
        schema = max((pq.read_schema(part) for part in parts), key=len)
        unreadable = 0

        def tables() -> Iterator[pa.Table]:
            nonlocal unreadable
            for part in parts:
                table = pq.read_table(part)
                unreadable += len(table) - table["error"].null_count
                yield fill(table, schema)

        with whole_file(self.output) as partial:
            (write or FORMATS[self.output.suffix.lower()])(partial, schema, tables())
        shutil.rmtree(self.parts)
        return unreadable

    def _part(self, chunk: int) -> Path:
        return self.parts / f"{chunk:08d}.parquet"


def check_format(output: Path, formats: tuple[str, ...]) -> None:
    """Raise ValueError if a file's ending is none of the formats'."""
    if output.suffix.lower() not in formats:
        raise ValueError(f"--output {output} ends in none of {', '.join(formats)}: choose one of these formats.")


def make_column(name: str, values: list[Any]) -> pa.Array:
    """Return the values of a column in the type that its name says."""
    if name == "embedding":
        width = next(len(value) for value in values if value is not None)
        return pa.array(values, pa.list_(pa.float32(), width))
    return pa.array(values, pa.float64() if name.startswith(("score_", "fraction_")) else pa.string())


def fill(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a chunk with all of the schema's columns; one whose images are all unreadable has only some."""
    columns = [
        table[field.name] if field.name in table.column_names else pa.nulls(len(table), field.type) for field in schema
    ]
    return pa.table(columns, schema=schema)


def write_csv(file: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    """Write a table with a header; an embedding has a column for each of its numbers."""
    width = schema.field("embedding").type.list_size if "embedding" in schema.names else 0
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        numbers = [f"embedding_{number}" for number in range(width)]
        writer.writerow(spread({name: numbers if name == "embedding" else name for name in schema.names}, width))
        writer.writerows(spread(row, width) for row in rows_of(tables))


def spread(row: dict[str, Any], width: int) -> list[Any]:
    """Return a row's values, those of an embedding each for itself."""
    values = []
    for name, value in row.items():
        values += (value or [None] * width) if name == "embedding" else [value]
    return values


def write_jsonl(file: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    """Write an object a line, without what is empty in it."""
    with file.open("w", encoding="utf-8") as opened:
        for row in rows_of(tables):
            filled = {name: value for name, value in row.items() if value is not None}
            opened.write(json.dumps(filled, ensure_ascii=False) + "\n")


def write_parquet(file: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    """Write a row group for each chunk."""
    with pq.ParquetWriter(file, schema) as writer:
        for table in tables:
            writer.write_table(table)


def rows_of(tables: Iterator[pa.Table]) -> Iterator[dict[str, Any]]:
    """Yield the rows of tables by the names of their columns."""
    for table in tables:
        yield from table.to_pylist()


Writer = Callable[[Path, pa.Schema, Iterator[pa.Table]], None]
OBJECT_FORMATS = (".json",)  # see object_files.py
FORMATS: dict[str, Writer] = {
    ".csv": write_csv,
    ".jsonl": write_jsonl,
    ".parquet": write_parquet,
}
