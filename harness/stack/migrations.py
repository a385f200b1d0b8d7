"""The call history's schema in any Supabase: numbered files run once and in order, and what has drifted from them since."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from harness.errors import EnvironmentFault, StackError
from harness.model import value

SUPABASE = Path(__file__).resolve().parents[2] / "deploy" / "monitoring" / "supabase"
FILES = tuple(sorted((SUPABASE / "migrations").glob("[0-9]*.sql")))
SCHEMA = SUPABASE / "schema.txt"
"""What the migrations make, a fact a line: written by ``python -m harness.stack.backend``."""

_LOCK = 0x766F7870726F6F66  # "voxproof"
_CONNECT_S = 10
_LEDGER = """
create schema if not exists voxproof;
create table if not exists voxproof.migrations (name text primary key, sha256 text not null, ran_at timestamptz default now());
"""
_OURS = ("calls", "transcripts", "tool_executions", "alerts_history", "realtime_canary")
_VIEWS = ("panel_calls_24h", "panel_calls_by_hour", "panel_tools_24h", "panel_tool_share_24h")
_FUNCTIONS = ("end_dead_calls", "delete_old_history", "server_now")
_ROLES = ("anon", "authenticated", "service_role", "voxproof_judge")
"""Whose grants are compared: owners and the roles of the platform differ from project to project."""


@value
class Drift:
    """How a database differs from what the migrations make. Empty: not at all."""

    ledger: tuple[str, ...]
    """Migrations that were not run, changed since, or are of a newer version."""
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    """Grants, policies and published tables that nobody asked for; columns and indexes may be added freely."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """One a difference."""
        return (
            *self.ledger,
            *(f"missing: {fact}" for fact in self.missing),
            *(f"unexpected: {fact}" for fact in self.unexpected),
        )


def migrate(dsn: str, files: Sequence[Path] = FILES, *, replace: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Runs every file that the ledger does not have, in order, each in one transaction; the names it ran.

    Two at once wait for each other, also behind a pooler of transactions. replace: words to put in for others.
    Raises StackError, naming file and cause, if one fails or if a file changed after it was run; EnvironmentFault if nobody answers.
    """
    ran: list[str] = []
    with _connected(dsn) as connection:
        for path in files:
            text = path.read_text()
            digest = hashlib.sha256(text.encode()).hexdigest()
            for word, instead in (replace or {}).items():
                text = text.replace(word, instead)
            try:
                with connection.transaction():
                    connection.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
                    if not ran:
                        connection.execute(_LEDGER.encode())
                    done = connection.execute("select sha256 from voxproof.migrations where name = %s", (path.name,)).fetchone()
                    if done is None:
                        connection.execute(text.encode())
                        connection.execute("insert into voxproof.migrations (name, sha256) values (%s, %s)", (path.name, digest))
                        ran.append(path.name)
                    elif done[0] != digest:
                        raise StackError(f"{path.name} changed after it was run; write a new migration instead")
            except psycopg.Error as exc:
                raise StackError(f"{path.name}: {exc}") from exc
    return tuple(ran)


def drift(dsn: str) -> Drift:
    """What differs, read without changing anything. Raises EnvironmentFault if nobody answers."""
    with _connected(dsn) as connection:
        ledger = {}
        if connection.execute("select to_regclass('voxproof.migrations')").fetchone() != (None,):
            ledger = dict(connection.execute("select name, sha256 from voxproof.migrations").fetchall())
        found = catalog(connection)
    return compared(ledger, {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FILES}, wanted(), found)


def compared(ledger: Mapping[str, str], files: Mapping[str, str], wanted: Sequence[str], found: Sequence[str]) -> Drift:
    """Digests by name, and facts. Pure."""
    said = []
    for name, digest in files.items():
        if name not in ledger:
            said.append(f"{name} was never run: voxproof migrate")
        elif ledger[name] != digest:
            said.append(f"{name} changed after it was run")
    said += [f"{name} is of a newer voxproof than this one" for name in sorted(ledger) if name[:1].isdigit() and name not in files]
    missing = tuple(fact for fact in wanted if fact not in found)
    return Drift(ledger=tuple(said), missing=missing, unexpected=tuple(fact for fact in found if fact not in wanted and _is_guarded(fact)))


def wanted() -> tuple[str, ...]:
    """The facts of a database that was just migrated."""
    return tuple(SCHEMA.read_text().splitlines())


def catalog(connection: psycopg.Connection[Any]) -> tuple[str, ...]:
    """What the catalog says of our tables, functions and role, a fact a line, sorted."""
    names = {"tables": [*_OURS, *_VIEWS], "functions": list(_FUNCTIONS), "roles": list(_ROLES)}
    with connection.transaction():
        # Names in definitions with their schema, whatever the path of whoever asks.
        connection.execute("set local search_path = ''")
        return tuple(sorted({line for query in _CATALOG for (line,) in connection.execute(query.encode(), names)}))


def _is_guarded(fact: str) -> bool:
    return any(f" {word} " in f"{fact} " for word in ("grant", "policy", "published", "security"))


def _connected(dsn: str) -> psycopg.Connection[Any]:
    try:
        # No prepared statements: poolers of transactions have none.
        return psycopg.connect(dsn, autocommit=True, connect_timeout=_CONNECT_S, prepare_threshold=None)
    except psycopg.Error as exc:
        said = str(exc).strip().splitlines()
        raise EnvironmentFault(f"the database of VOXPROOF_DATABASE_URL cannot be reached: {said[-1] if said else exc}") from exc


_TABLES = "from pg_class c where c.relnamespace = 'public'::regnamespace and c.relname = any(%(tables)s)"
_CATALOG = (
    f"select format('%%s view, security %%s', c.relname, array_to_string(c.reloptions, ' ')) {_TABLES} and c.relkind = 'v'",
    f"select format('%%s row security %%s', c.relname, case when c.relrowsecurity then 'on' else 'off' end) {_TABLES} and c.relkind = 'r'",
    f"select format('%%s replica identity %%s', c.relname, c.relreplident) {_TABLES} and c.relkind = 'r'",
    """select format('%%s column %%s %%s%%s%%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
         case when a.attnotnull then ' not null' else '' end, coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), ''))
       from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
       left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
       where c.relnamespace = 'public'::regnamespace and c.relname = any(%(tables)s)""",
    """select format('%%s constraint %%s', c.relname, pg_get_constraintdef(k.oid))
       from pg_class c join pg_constraint k on k.conrelid = c.oid and k.contype in ('p', 'u', 'f', 'c')
       where c.relnamespace = 'public'::regnamespace and c.relname = any(%(tables)s)""",
    """select format('%%s index %%s', c.relname, pg_get_indexdef(i.indexrelid))
       from pg_class c join pg_index i on i.indrelid = c.oid and i.indisvalid
       where c.relnamespace = 'public'::regnamespace and c.relname = any(%(tables)s)""",
    """select format('%%s policy %%s %%s to %%s using %%s check %%s', tablename, policyname, cmd, array_to_string(roles, ','), qual, with_check)
       from pg_policies where schemaname = 'public' and tablename = any(%(tables)s)""",
    """select format('%%s grant %%s to %%s', c.relname, g.privilege_type, coalesce(r.rolname, 'public'))
       from pg_class c cross join aclexplode(c.relacl) g left join pg_roles r on r.oid = g.grantee
       where c.relnamespace = 'public'::regnamespace and c.relname = any(%(tables)s)
       and (r.rolname = any(%(roles)s) or g.grantee = 0)""",
    """select format('%%s grant %%s to %%s', p.oid::regprocedure, g.privilege_type, coalesce(r.rolname, 'public'))
       from pg_proc p cross join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) g left join pg_roles r on r.oid = g.grantee
       where p.pronamespace = 'public'::regnamespace and p.proname = any(%(functions)s) and (r.rolname = any(%(roles)s) or g.grantee = 0)""",
    """select format('%%s function %%s, security %%s, %%s', p.oid::regprocedure, md5(p.prosrc),
         case when p.prosecdef then 'definer' else 'invoker' end, array_to_string(p.proconfig, ' '))
       from pg_proc p where p.pronamespace = 'public'::regnamespace and p.proname = any(%(functions)s)""",
    """select format('%%s published by %%s', tablename, pubname) from pg_publication_tables
       where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = any(%(tables)s)""",
    """select format('%%s role, security %%s', rolname,
         case when rolsuper or rolbypassrls or rolcanlogin or rolcreaterole then 'beyond reading' else 'reads only' end)
       from pg_roles where rolname = 'voxproof_judge'""",
)
