"""Compares two databases of one server row for row, and names the first difference."""

import itertools
import subprocess


class Difference(Exception):
    """Two databases differ; the text says where."""


def tables(server, database):
    """The names of the tables in schema `public`, sorted."""
    rows = server.query(
        database, "select tablename from pg_tables where schemaname = 'public' order by 1"
    )
    return [name for (name,) in rows]


def _fingerprint_sql(table):
    # The sums do not depend on the order of rows; two seeds make 128 bits, which also
    # weigh a row that is there twice.
    return (
        f"select count(*), coalesce(sum(hashtextextended(r::text, 1)), 0), "
        f'coalesce(sum(hashtextextended(r::text, 2)), 0) from public."{table}" r'
    )


def _fingerprints(server, databases, table):
    # One session for each database, so that two cores work.
    running = [
        subprocess.Popen(
            server.psql(name, "-F", " ", "-c", _fingerprint_sql(table)),
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in databases
    ]
    results = [process.communicate()[0].strip() for process in running]
    for name, process in zip(databases, running):
        if process.returncode != 0:
            raise RuntimeError(f"cannot read table {table} of database {name}")
    return results


def _first_different_row(server, left, right, table):
    sql = f'copy (select r::text from public."{table}" r order by 1) to stdout'
    running = [
        subprocess.Popen(server.psql(name, "-c", sql), stdout=subprocess.PIPE)
        for name in (left, right)
    ]
    try:
        for a, b in itertools.zip_longest(running[0].stdout, running[1].stdout):
            if a != b:
                return a, b
        return None, None
    finally:
        for process in running:
            process.stdout.close()
            process.terminate()
            process.wait()


def _schema(server, database):
    dump = subprocess.run(
        server.pg_dump(database, "--schema-only"), capture_output=True, check=True, text=True
    )
    lines = dump.stdout.splitlines()
    # Without a fixed key each dump holds a random one.
    return [line for line in lines if not line.startswith(("\\restrict", "\\unrestrict"))]


def _sequences(server, database):
    return server.query(
        database,
        "select sequencename, last_value from pg_sequences where schemaname = 'public' order by 1",
    )


def compare(server, left, right):
    """Returns `{table: rows}` when both databases hold the same, else raises `Difference`."""
    for a, b in itertools.zip_longest(_schema(server, left), _schema(server, right)):
        if a != b:
            raise Difference(f"schema: {left} has {a!r}, {right} has {b!r}")
    if (a := _sequences(server, left)) != (b := _sequences(server, right)):
        raise Difference(f"sequences: {left} has {a}, {right} has {b}")
    rows = {}
    for table in tables(server, left):
        a, b = _fingerprints(server, (left, right), table)
        if a != b:
            row_a, row_b = _first_different_row(server, left, right, table)
            raise Difference(f"table {table}: {left} has {row_a!r}, {right} has {row_b!r}")
        rows[table] = int(a.split()[0])
    if not rows:
        raise Difference(f"database {left} has no table: nothing was compared")
    return rows
