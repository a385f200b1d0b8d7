"""PostgreSQL's side of Realtime: a temporary slot that tells every change, and row security asked on behalf of a subscriber."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg_pool import AsyncConnectionPool

from gateway.changes import Binding
from gateway.pgoutput import Change, Decoder, Relation
from gateway.tokens import Claims

PUBLICATION = "supabase_realtime"
BATCH = 500
"""Changes decided together: one question of row security a subscriber and table, not one a row."""
Pool = AsyncConnectionPool[psycopg.AsyncConnection[Any]]

# The text of a function that returns changes up to now; a transaction is never split by its limit, hence the reading row by row.
_READ = b"select data from pg_logical_slot_get_binary_changes(%s, null, 5000, 'proto_version', '1', 'publication_names', %s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFacts:
    """What the catalog says of a published table."""

    key: tuple[str, ...]
    """Columns of the primary key."""
    has_row_security: bool


class Slot:
    """A temporary logical slot: it dies with its connection, and with it every change not yet read."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], name: str, types: Mapping[int, str]) -> None:
        self._connection, self._name = connection, name
        self._decoder = Decoder(types)
        self.tables: dict[int, TableFacts] = {}

    @staticmethod
    @contextlib.asynccontextmanager
    async def opened(dsn: str) -> AsyncIterator[Slot]:
        """A slot that knows of every change committed after it is yielded. Raises psycopg.Error."""
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            name = f"realtime_{secrets.token_hex(6)}"
            await connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput', true)", (name,))
            types = await connection.execute("select oid::int8, typname from pg_type")
            yield Slot(connection, name, dict(await types.fetchall()))

    async def read(self, catalog: Pool) -> AsyncIterator[list[Change]]:
        """What has been committed since the last reading, in order, in batches."""
        batch: list[Change] = []
        rows = self._connection.cursor().stream(_READ, (self._name, PUBLICATION), binary=True, size=100)
        async for (message,) in rows:
            said = self._decoder.feed(bytes(message))
            if isinstance(said, Relation):
                if batch:
                    yield batch
                    batch = []
                self.tables[said.oid] = await _facts(catalog, said.oid)
            elif said is not None:
                batch.append(said)
                if len(batch) == BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch


async def visible(pool: Pool, claims: Claims, relation: Relation, facts: TableFacts, changes: Sequence[Change]) -> set[int]:
    """Positions of those ``changes`` of ``relation`` that ``claims`` may read now.

    A deleted row cannot be asked for: whoever may read the table at all is told. Raises psycopg.Error if PostgreSQL cannot say.
    """
    async with pool.connection() as connection:
        allowed = await connection.execute("select has_table_privilege(%s, %s::oid, 'select')", (claims.role, relation.oid))
        if await allowed.fetchone() != (True,):
            return set()
        kept = [at for at, change in enumerate(changes) if change.kind != "DELETE" and all(name in change.record for name in facts.key)]
        deleted = {at for at, change in enumerate(changes) if change.kind == "DELETE"}
        if not kept or not facts.key:
            return deleted
        types = {column.name: column.type for column in relation.columns}
        names = [sql.Identifier(f"k{number}") for number in range(len(facts.key))]
        arrays = sql.SQL(", ").join(sql.SQL("%s::{}[]").format(sql.Identifier(types[name])) for name in facts.key)
        same = sql.SQL(" and ").join(
            sql.SQL("t.{} = k.{}").format(sql.Identifier(name), each) for name, each in zip(facts.key, names, strict=True)
        )
        query = sql.SQL("select k.ord from unnest({}) with ordinality as k ({}, ord) join {} t on {}").format(
            arrays, sql.SQL(", ").join(names), sql.Identifier(relation.schema, relation.table), same
        )
        keys = [[str(changes[at].record[name]) for at in kept] for name in facts.key]
        async with connection.transaction():
            await connection.execute(
                "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)", (claims.role, claims.as_json)
            )
            found = await (await connection.execute(query, keys)).fetchall()
        return deleted | {kept[order - 1] for (order,) in found}


async def missing(pool: Pool, bindings: Sequence[Binding]) -> Binding | None:
    """The first binding that asks for a table that is not published, or filters by a column that is not there."""
    async with pool.connection() as connection:
        for binding in bindings:
            found = await connection.execute(
                "select p.attnames from pg_publication_tables p where p.pubname = %s and (%s = '*' or p.schemaname = %s)"
                " and (%s = '*' or p.tablename = %s)",
                (PUBLICATION, binding.schema, binding.schema, binding.table, binding.table),
            )
            tables = await found.fetchall()
            if not tables or (binding.filter and not any(binding.filter.column in columns for (columns,) in tables)):
                return binding
    return None


async def _facts(pool: Pool, oid: int) -> TableFacts:
    async with pool.connection() as connection:
        found = await connection.execute(
            "select c.relrowsecurity, array(select a.attname::text from pg_index i join pg_attribute a"
            " on a.attrelid = i.indrelid and a.attnum = any(i.indkey) where i.indrelid = c.oid and i.indisprimary"
            " order by array_position(i.indkey::int2[], a.attnum)) from pg_class c where c.oid = %s::oid",
            (oid,),
        )
        row = await found.fetchone()
    # None: the table was dropped after the change.
    return TableFacts(key=tuple(row[1]), has_row_security=row[0]) if row else TableFacts(key=(), has_row_security=True)
