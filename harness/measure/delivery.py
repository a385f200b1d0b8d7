"""What became of each change on its way through Realtime: heard once, twice, late, never, or never while nobody could have heard it.

The rows that REST has are the truth; Realtime is only held against them. A canary is a row of our own, written to be heard.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness import codec
from harness.model import Row, Source, UnixNs, value

HEARD, PROOFS = "realtime", "realtime-proofs"
"""Tables of a run's observations: hearings, and what they are held against."""


@value
class Written:
    """A change that is known to have happened."""

    table: str
    kind: str
    """INSERT or UPDATE."""
    key: str
    """Of the row; with the kind it names the change."""
    at: UnixNs | None
    """Instant of the write on our clock. None: only that it happened is known, and no lag is measured."""
    error_s: float = 0.0
    """How far ``at`` may be off, either way: half the round trip in which the server's clock was read."""
    not_before: UnixNs | None = None
    """For a change whose instant is not known: it cannot have happened earlier. None: nothing is known of it."""


@value
class Heard:
    """A change as a listener received it."""

    table: str
    kind: str
    key: str
    at: UnixNs
    """Instant at which its callback ran."""
    commit_timestamp: str
    """The server's clock: tells two changes of one row from one change that was told twice. No lag rests on it."""
    call_id: str | None = None
    """None: the row has none, or it was heard before this was kept."""


@value
class Canary:
    """One proof that the subscription delivers."""

    written_at: UnixNs
    """Just before the request that wrote it."""
    heard_at: UnixNs | None
    """None: never."""


@value
class Break:
    """The subscription said, or showed, that it no longer delivers."""

    at: UnixNs
    reason: str


@value
class ServerClock:
    """How the server's clock stood to ours."""

    offset_s: float
    """The server's less ours."""
    error_s: float


Told = Heard | Canary | Break | ServerClock
"""What a listener says."""


def observed(told: Told, request: str) -> Row:
    """A line of the run directory. request: the socket's address."""
    match told:
        case Heard() | Break():
            at = told.at
        case Canary():
            at = told.heard_at or told.written_at
        case ServerClock():
            at = UnixNs(0)
    table = HEARD if isinstance(told, Heard) else PROOFS
    return Row(source=Source.REALTIME, table=table, columns={"told": type(told).__name__, **codec.to_json(told)}, at=at, request=request)


def told_by(row: Row) -> Told:
    """What ``observed`` wrote."""
    kinds: Mapping[str, type[Told]] = {kind.__name__: kind for kind in (Heard, Canary, Break, ServerClock)}
    told: Told = codec.from_json(kinds[row.columns["told"]], row.columns)
    return told


@value
class Deaf:
    """From the last proof before a break to the first one after it: whether a change of this time can be heard is unknown."""

    since: UnixNs
    until: UnixNs


class Fate(enum.StrEnum):
    """What became of one change."""

    DELIVERED = "delivered"
    DOUBLED = "doubled"
    """One commit was heard more than once."""
    LATE = "late"
    """Heard once, after more than the limit."""
    MISSED = "missed"
    """Never heard, although proofs before and after it were."""
    MISSED_WHILE_DEAF = "missed during reconnect"
    """Never heard, and the subscription was not proven to deliver then: no replay is promised."""


@value
class Delivery:
    """One change and its fate."""

    written: Written
    fate: Fate
    times: int
    """Hearings of the same commit, of the one that was heard most."""
    lag_s: float | None
    """From the write to the first hearing, known within ``written.error_s``. None: never heard, or the write's instant is unknown."""


def deaf(canaries: Sequence[Canary], breaks: Sequence[Break], *, began_at: UnixNs, ended_at: UnixNs) -> tuple[Deaf, ...]:
    """The times in which the subscription was not proven to deliver, in order.

    Before the first canary that was heard; and between two that were, if one between them was not or a break was noticed there.
    """
    proofs = sorted(canary.written_at for canary in canaries if canary.heard_at is not None)
    doubts = sorted([*(canary.written_at for canary in canaries if canary.heard_at is None), *(each.at for each in breaks)])
    if not proofs:
        return (Deaf(since=began_at, until=ended_at),)
    found = [Deaf(since=began_at, until=proofs[0])] if proofs[0] > began_at else []
    for before, after in zip(proofs, [*proofs[1:], ended_at], strict=True):
        if any(before < doubt <= after for doubt in doubts):
            found.append(Deaf(since=before, until=after))
    return tuple(found)


def deliveries(
    written: Iterable[Written], heard: Iterable[Heard], deaf_times: Sequence[Deaf], *, late_after_s: float
) -> tuple[Delivery, ...]:
    """The fate of every change, in the order of ``written``."""
    by_change: dict[tuple[str, str, str], list[Heard]] = {}
    for each in heard:
        by_change.setdefault((each.table, each.kind, each.key), []).append(each)
    return tuple(
        _delivery(change, by_change.get((change.table, change.kind, change.key), ()), deaf_times, late_after_s) for change in written
    )


@value
class Account:
    """What became of all changes of a run."""

    written: int
    fates: Mapping[str, int]
    lag_p50_s: float | None
    lag_p99_s: float | None
    lag_error_s: float | None
    """How far every lag may be off. None: the server's clock was never read, and no lag is known."""
    deaf_s: float
    """Altogether, of the time in which changes happened."""
    breaks: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """For a person."""
        told = ", ".join(f"{count} {fate}" for fate, count in self.fates.items() if count)
        lag = "" if self.lag_p50_s is None else f"; lag p50 {self.lag_p50_s * 1e3:.0f} ms"
        return f"realtime: of {self.written} changes {told or 'none'}{lag}"


def account(
    written: Sequence[Written],
    told: Sequence[Told],
    *,
    began_at: UnixNs,
    ended_at: UnixNs,
    late_after_s: float,
) -> Account:
    """Of a listener that told all this between ``began_at`` and ``ended_at``."""
    canaries, breaks = [each for each in told if isinstance(each, Canary)], [each for each in told if isinstance(each, Break)]
    gaps = deaf(canaries, breaks, began_at=began_at, ended_at=ended_at)
    found = deliveries(written, [each for each in told if isinstance(each, Heard)], gaps, late_after_s=late_after_s)
    fates = Counter(each.fate for each in found)
    clocks = [each for each in told if isinstance(each, ServerClock)]
    return Account(
        written=len(written),
        fates={fate.value: fates[fate] for fate in Fate},
        lag_p50_s=lag_quantile_s(found, 0.5),
        lag_p99_s=lag_quantile_s(found, 0.99),
        lag_error_s=clocks[-1].error_s if clocks else None,
        deaf_s=sum((each.until - each.since) / 1e9 for each in gaps),
        breaks=tuple(each.reason for each in breaks),
    )


def call_changes(rows: Iterable[Mapping[str, Any]], clock: ServerClock | None) -> tuple[Written, ...]:
    """What must have happened to calls that look like this now: each began, and those that were there before their end have ended.

    rows: of the table ``calls``. clock: None if it is unknown, and with it the instants.
    """
    return tuple(change for row in rows for change in _call_changes(row, clock))


def _call_changes(row: Mapping[str, Any], clock: ServerClock | None) -> Iterator[Written]:
    recorded_at = dt.datetime.fromisoformat(row["recorded_at"]) if row.get("recorded_at") else None
    at = None if clock is None or recorded_at is None else UnixNs(round((recorded_at.timestamp() - clock.offset_s) * 1e9))
    yield Written(table="calls", kind="INSERT", key=str(row["id"]), at=at, error_s=clock.error_s if clock else 0.0)
    if row.get("end_time") is None:
        return
    if recorded_at is None or dt.datetime.fromisoformat(row["end_time"]) > recorded_at:
        yield Written(table="calls", kind="UPDATE", key=f"{row['id']} {row['status']}", at=None, not_before=at)


def unknown(written: Iterable[Written], heard: Iterable[Heard]) -> tuple[Heard, ...]:
    """What was heard and is not known to have happened: rows of others, or rows that are gone."""
    known = {(change.table, change.kind, change.key) for change in written}
    return tuple(each for each in heard if (each.table, each.kind, each.key) not in known)


def lag_quantile_s(found: Iterable[Delivery], q: float) -> float | None:
    """Nearest-rank quantile of the lags that are known. None: none is."""
    lags = sorted(each.lag_s for each in found if each.lag_s is not None)
    return lags[max(0, -(-len(lags) * round(q * 1000) // 1000) - 1)] if lags else None


def _delivery(change: Written, received: Sequence[Heard], deaf_times: Sequence[Deaf], late_after_s: float) -> Delivery:
    times = max(Counter(each.commit_timestamp for each in received).values(), default=0)
    lag_s = (min(each.at for each in received) - change.at) / 1e9 if received and change.at is not None else None
    if times > 1:
        fate = Fate.DOUBLED
    elif not times:
        fate = Fate.MISSED_WHILE_DEAF if is_excused(change, deaf_times) else Fate.MISSED
    elif lag_s is not None and lag_s - change.error_s > late_after_s:
        fate = Fate.LATE
    else:
        fate = Fate.DELIVERED
    return Delivery(written=change, fate=fate, times=times, lag_s=lag_s)


def is_excused(change: Written, deaf_times: Sequence[Deaf]) -> bool:
    """It may have happened while nobody could have heard it."""
    if change.at is None:
        return any(change.not_before is None or each.until >= change.not_before for each in deaf_times)
    error_ns = round(change.error_s * 1e9)
    return any(each.since - error_ns <= change.at <= each.until + error_ns for each in deaf_times)
