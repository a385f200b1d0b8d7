"""Everything that one target lets us read: recorded while the calls run, watched until it is at rest, read afterwards."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx

from harness import door
from harness.clock import Clock
from harness.collect import exporter, prometheus, realtime, rows, ruler
from harness.collect.exporter import Exporter, Sink
from harness.collect.naming import Translator
from harness.collect.prometheus import Prometheus
from harness.collect.rows import Rows
from harness.collect.sfu import Sfu
from harness.door import Meter
from harness.measure.delivery import Account, Break, Canary, Heard, ServerClock, Told, account, call_changes, observed
from harness.model import CallPlan, Cost, Door, Gap, Observation, Poll, Row, Sample, Source, Target, UnixNs, value

_CANARY_EVERY_S = 2.0
_READY_S = 3.0
"""Calls placed before the listener is ready would be missed by nobody's fault; not to be ready is no reason to place none."""
_LATE_AFTER_S = 5.0
"""A call that is shown as active later than this was not shown when it began."""
_QUIET_S = 2.0
"""Two polls without a change: the agent exports once a second or more often."""


@value
class Rest:
    """How far the stack is from having said its last word about our calls. None: cannot be seen."""

    active_calls: float | None
    is_quiet: bool
    """No exporter changed lately."""
    open_rows: int | None
    rooms: float | None

    @property
    def is_reached(self) -> bool:
        return self.is_quiet and not self.active_calls and not self.open_rows and not self.rooms


class Sources:
    """The readable sources of ``target``. A context manager: it keeps connections. Blind sources become Gaps at once."""

    def __init__(self, target: Target, plans: Sequence[CallPlan], *, clock: Clock, sink: Sink) -> None:
        self._target = target
        self._rooms = tuple(plan.room for plan in plans)
        self._call_ids = tuple(plan.call_id for plan in plans)
        self._clock = clock
        self._sink = sink
        self._told: list[Told] = []
        self._socket = f"{(target.supabase_url or '').rstrip('/')}/realtime/v1/websocket"
        self._began_at = clock.now()
        self._calls: tuple[Mapping[str, Any], ...] = ()
        self._exits = ExitStack()
        self._names = Translator(target.names)
        self._meters: dict[Source, Meter] = {}
        self._items: Counter[Source] = Counter()
        urls = {Source.AGENT_EXPORTER: target.agent_metrics_url, Source.SFU_EXPORTER: target.sfu_metrics_url}
        self._exporters = tuple(
            Exporter(source, url, clock=clock, client=self._client(source, exporter.TIMEOUT_S), names=self._names)
            for source, url in urls.items()
            if url and source not in target.blind
        )
        self._prometheus: Prometheus | None = None
        if target.prometheus_url and not {Source.PROMETHEUS, Source.RULES} <= target.blind.keys():
            client = self._client(Source.PROMETHEUS, prometheus.TIMEOUT_S)
            self._prometheus = Prometheus(target.prometheus_url, clock=clock, client=client, names=self._names)
        self._rows: Rows | None = None
        if target.supabase_url and target.supabase_key and Source.ROWS not in target.blind:
            self._rows = Rows(
                target.supabase_url,
                target.supabase_key,
                token=target.supabase_token,
                clock=clock,
                client=self._client(Source.ROWS, rows.TIMEOUT_S),
                names=self._names,
                lacking=target.names.lacking,
            )
        self._sfu: Sfu | None = None
        if Source.SFU_API not in target.blind:
            meter = self._meters[Source.SFU_API] = Meter(Source.SFU_API)
            self._sfu = Sfu(target.livekit_url, target.livekit_api_key, target.livekit_api_secret, clock=clock, meter=meter)

    def __enter__(self) -> Sources:
        for name, reason in self._target.blind.items():
            source = Source(name)
            self._keep(source, (Gap(source=source, at=self._clock.now(), reason=reason, request="", is_blind=True),))
        if Source.ROWS in self._target.blind and Source.REALTIME not in self._target.blind:
            reason = f"no call history: {self._target.blind[Source.ROWS]}"
            self._keep(Source.REALTIME, (Gap(source=Source.REALTIME, at=self._clock.now(), reason=reason, request="", is_blind=True),))
        return self

    def __exit__(self, *exc: object) -> None:
        self._exits.close()

    def settings(self) -> Mapping[str, Any]:
        """What the target's Prometheus says of itself, and what its owner says of it."""
        names = self._target.names
        return {
            **(self._prometheus.settings() if self._prometheus else {}),
            **({"lacking": dict(names.lacking)} if names.lacking else {}),
            **({"exclusive": True} if self._target.is_exclusive else {}),
        }

    def rules(self) -> str | None:
        """The target's own recording rules, in our words. None: it shows none."""
        return self._prometheus.rules() if self._prometheus and Source.RULES not in self._target.blind else None

    def cost(self) -> tuple[Cost, ...]:
        """What our requests have put on each source so far."""
        return tuple(dataclasses.replace(meter.cost, items=self._items[source]) for source, meter in self._meters.items())

    def _client(self, source: Source, timeout_s: float) -> httpx.Client:
        meter = self._meters[source] = Meter(source)
        # A proxy of the environment is no way to our own loopback.
        trust_env = not self._target.is_embedded
        opened = door.client(self._target.doors.get(source, Door()), trust_env=trust_env, timeout_s=timeout_s, meter=meter)
        return self._exits.enter_context(opened)

    def _keep(self, source: Source, items: Iterable[Observation | Gap]) -> None:
        """Every reading on its way to the run directory."""
        kept = tuple(items)
        # Rules are read of the same server.
        self._items[Source.PROMETHEUS if source is Source.RULES else source] += sum(i.count for i in kept if isinstance(i, Poll))
        self._sink(source, kept)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Polls the exporters and listens to Realtime until the block ends, after one look at the media server's rooms."""
        self._look_at_rooms()
        with ExitStack() as exits:
            exits.enter_context(exporter.record(self._exporters, self._keep))
            if self._rows is not None and Source.REALTIME not in self._target.blind:
                access, trust_env = self._access(), not self._target.is_embedded
                listening = realtime.record(access, self._take, clock=self._clock, trust_env=trust_env, every_s=_CANARY_EVERY_S)
                exits.callback(self._say_what_was_heard, self._clock.now())
                exits.enter_context(listening).wait_ready(_READY_S)
            yield

    def _say_what_was_heard(self, since: UnixNs) -> None:
        """How the listening went: that it was proven to hear is what makes silence a loss."""
        at = self._clock.now()
        count = sum(isinstance(each, Heard) for each in self._told)
        if any(isinstance(each, Canary) and each.heard_at is not None for each in self._told):
            poll = Poll(source=Source.REALTIME, at=at, took_s=(at - since) / 1e9, count=count, request=self._socket)
            self._keep(Source.REALTIME, (poll,))
            return
        breaks = [each.reason for each in self._told if isinstance(each, Break)]
        # What the server said tells more than that we gave up.
        why = next((each for each in reversed(breaks) if each != realtime.NEVER_READY), breaks[-1] if breaks else "no canary came back")
        reason = f"the subscription was never proven to deliver: {why}"
        self._keep(Source.REALTIME, (Gap(source=Source.REALTIME, at=at, reason=reason, request=self._socket),))

    def account(self) -> Account | None:
        """What became of the changes of our calls on their way through Realtime. None: nobody listened, or no row was read."""
        if not self._told or not self._calls:
            return None
        server = next((each for each in self._told if isinstance(each, ServerClock)), None)
        changes = call_changes(self._calls, server)
        return account(changes, self._told, began_at=self._began_at, ended_at=self._clock.now(), late_after_s=_LATE_AFTER_S)

    def _access(self) -> realtime.Access:
        target = self._target
        # A key that reads in its own right may also write; beside a token it only opens the door.
        can_write = target.is_embedded or target.supabase_token is None
        return realtime.Access(
            url=str(target.supabase_url),
            key=str(target.supabase_key),
            token=target.supabase_token,
            names=self._names,
            call_ids=self._call_ids,
            canary_key=target.supabase_key if can_write else None,
        )

    def _take(self, told: Told) -> None:
        self._told.append(told)
        self._keep(Source.REALTIME, (observed(told, self._socket),))

    def rest(self) -> Rest:
        """Where the stack stands now."""
        agent = next((each for each in self._exporters if each.source is Source.AGENT_EXPORTER), None)
        changed_at = max((each.changed_at for each in self._exporters if each.changed_at is not None), default=None)
        return Rest(
            active_calls=agent.last_value("voice_agent_active_calls") if agent else None,
            is_quiet=changed_at is None or self._clock.now() - changed_at > _QUIET_S * 1e9,
            open_rows=self._rows.open_calls(self._call_ids) if self._rows else None,
            rooms=next((item.value for item in self._rooms_now() if isinstance(item, Sample) and item.name == "rooms"), None),
        )

    def wait_scraped(self, since: UnixNs, *, timeout_s: float, pause: Callable[[float], None] = time.sleep) -> bool:
        """Whether Prometheus tried every target after ``since`` before the time was up."""
        until = time.monotonic() + timeout_s
        while self._prometheus is not None and not self._prometheus.has_tried_all(since):
            if time.monotonic() > until:
                return False
            pause(0.25)
        return True

    def read(self, since: UnixNs) -> UnixNs:
        """Reads the window from ``since`` until now of every source that keeps a history. Returns the window's end."""
        until = self._clock.now()
        if self._prometheus:
            items = self._prometheus.read(since, until)
            for source in (Source.PROMETHEUS, Source.RULES):
                if source not in self._target.blind:
                    self._keep(source, tuple(item for item in items if item.source is source))
        if self._rows:
            found = self._rows.read(self._call_ids)
            self._calls = tuple(
                row.columns for row in found if isinstance(row, Row) and row.table == "calls" and "recorded_at" in row.columns
            )
            self._keep(Source.ROWS, found)
        for source, read, path in (
            (Source.AGENT_RULER, ruler.stages, self._target.agent_ruler),
            (Source.TOOL_ENDPOINT, ruler.requests, self._target.tool_log),
        ):
            if source not in self._target.blind:
                self._keep(source, read(path, frozenset(self._rooms), clock=self._clock))
        self._look_at_rooms()
        return self._clock.now()

    def give_up(self, reason: str) -> None:
        """Every source that would have been read now is a Gap."""
        for source in (Source.PROMETHEUS, Source.RULES, Source.ROWS, Source.SFU_API):
            if source not in self._target.blind:
                self._keep(source, (Gap(source=source, at=self._clock.now(), reason=reason, request=""),))

    def _look_at_rooms(self) -> None:
        if found := self._rooms_now():
            self._keep(Source.SFU_API, found)

    def _rooms_now(self) -> tuple[Any, ...]:
        return self._sfu.read(self._rooms) if self._sfu else ()
