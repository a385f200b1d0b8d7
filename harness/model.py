"""The nouns of voxproof: frozen values that every stage reads and writes. Standard library only."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NewType, TypeVar, dataclass_transform

UnixNs = NewType("UnixNs", int)
"""An instant: nanoseconds since the Unix epoch, produced by ``harness.clock.Clock``."""

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """The house's dataclass: frozen, slotted, keyword-only."""
    return dataclass(frozen=True, slots=True, kw_only=True)(cls)


@value
class TurnPlan:
    """One thing the caller will say."""

    prompt: str
    """Name of a recorded prompt in ``fixtures/audio``."""
    text: str
    """The words of the prompt."""
    reply: str | None = None
    """The words a scripted agent answers with. None: any reply will do."""
    tool: str | None = None
    """Name of the tool that the turn must provoke. None: no tool."""
    tool_arguments: Mapping[str, Any] | None = None
    """Arguments the scripted agent passes to ``tool``."""
    barge_in_after_s: float | None = None
    """The caller begins so long after the first word of what the agent says before, and talks it down. None: it waits for its end."""


class PeerMode(enum.StrEnum):
    """How many peer connections a caller opens."""

    SINGLE = "single"
    """Half of the sockets, handshakes and server cost: the default."""
    DUAL = "dual"
    """What most SDKs do."""


class Grade(enum.StrEnum):
    """How much of a call is decoded."""

    FULL = "full"
    """Both sides, kept as a recording."""
    LIGHT = "light"
    """Headers only; packets are decoded just around an expected onset, nothing is recorded."""


@value
class Impairment:
    """What a network does to one direction of a call for a while. Everything absent: nothing.

    A call's impairments apply in order, each to what the one before it let through.
    """

    direction: str
    """``up``: caller to SFU; ``down``: SFU to caller."""
    from_s: float = 0.0
    """Seconds after the media path was up."""
    until_s: float | None = None
    """Exclusive. None: to the end of the call."""
    loss_ratio: float = 0.0
    """Share of the packets that is lost. 1: an outage."""
    burst_packets: float | None = None
    """Mean number of packets lost in a row (Gilbert). None: each packet is lost by itself."""
    lose_every: int | None = None
    """The n-th, 2n-th ... RTP packet is lost."""
    delay_s: float = 0.0
    jitter_s: float = 0.0
    """Further delay, uniform between 0 and this."""
    keeps_order: bool = True
    """A delayed packet waits for those sent before it."""
    reorder_ratio: float = 0.0
    """Share of the RTP packets that is held back for ``reorder_s`` and overtaken meanwhile."""
    reorder_s: float = 0.05
    duplicate_ratio: float = 0.0
    """Share of the RTP packets that comes twice."""
    rate_bps: float | None = None
    """Bits a second that pass, IP and UDP headers included. None: any."""
    queue_s: float = 0.2
    """Longest wait before the bottleneck; a packet that would wait longer is lost."""


@value
class CallPlan:
    """One call, planned before the run."""

    call_id: str
    """Made by us; travels in the dispatch metadata and becomes ``calls.call_id``."""
    index: int
    """1 for the first call of the run: ``call-1`` in paths and sentences."""
    room: str
    identity: str
    phone_number: str
    """A number of a range reserved for fiction: the caller has no real one."""
    agent_name: str
    due_s: float
    """Seconds after the start of the load at which the call is due."""
    turns: tuple[TurnPlan, ...]
    seed: int
    greeting: str | None = None
    """The words a scripted agent greets with. None: no greeting is expected."""
    answer_timeout_s: float = 10.0
    """Longest wait for the agent to join, and for each reply."""
    impairments: tuple[Impairment, ...] = ()
    """What the caller's network does to its packets."""
    hangs_up_after_s: float | None = None
    """The caller hangs up so long after its media path was up, whatever is being said. None: it stays to the end."""
    grade: Grade = Grade.FULL
    peers: PeerMode = PeerMode.SINGLE


class CallOutcome(enum.StrEnum):
    """How one call ended, as the caller saw it."""

    COMPLETED = "completed"
    """Every planned turn was spoken and the caller hung up."""
    HUNG_UP = "hung-up"
    """The caller hung up early, as it was planned."""
    DROPPED = "dropped"
    """Never started: the generator fell short."""
    CUT = "cut"
    """Started, and no end was recorded: our process died or was stopped."""
    NO_AGENT = "no-agent"
    """The agent never joined the room."""
    SILENT = "silent"
    """The agent joined, and at least one expected reply was never heard."""
    AGENT_LEFT = "agent-left"
    """The agent left the room before the caller hung up."""
    DISCONNECTED = "disconnected"
    """The media server ended or lost the connection."""
    REFUSED = "refused"
    """The media server never let the caller in."""
    UDP_BLOCKED = "udp-blocked"
    """Signalling worked, no media path was found."""


@value
class TurnRecord:
    """One exchange as the caller spoke and heard it. Instants are on the wire at the caller's network card."""

    index: int
    """1 for the first turn of its call."""
    prompt: str
    text: str
    tool: str | None = None
    user_speech_started_at: UnixNs
    user_speech_ended_at: UnixNs
    """Instant at which the last voiced sample of the prompt left: send time of its packet plus its offset inside the packet."""
    first_word_at: UnixNs | None
    """Onset of the agent's reply: kernel arrival of its packet plus its offset inside. None if none was heard."""
    agent_speech_ended_at: UnixNs | None
    void: str | None = None
    """Why our own evidence (pacing, drops, clock) forbids using this turn's latency. None: it may be used."""
    grade: Grade = Grade.FULL
    """How it was measured."""

    @property
    def response_latency_s(self) -> float | None:
        """Time to first word in seconds. Negative if the agent talked over the caller; None if it was never heard."""
        if self.first_word_at is None:
            return None
        return (self.first_word_at - self.user_speech_ended_at) / 1e9


@value
class WireStats:
    """One RTP direction of one call over its whole life."""

    direction: str
    """``up``: caller to SFU; ``down``: SFU to caller."""
    packets: int
    """Sent (up) or received (down)."""
    expected: int
    """Sent (up), or extended highest sequence number less the first, plus one (down); RFC 3550 A.3."""
    lost: int
    """Down: expected less received. Up: cumulative loss in the SFU's last receiver report."""
    jitter_s: float | None
    """Interarrival jitter, RFC 3550 6.4.1, at the end of the call. Up: from the SFU's receiver reports. None: never reported."""
    jitter_max_s: float | None
    rtt_s: tuple[float, ...] = ()
    """Round trips by LSR and DLSR of the SFU's receiver reports (up only)."""
    reordered: int = 0
    """Arrived after a packet with a higher sequence number (down only)."""
    duplicates: int = 0
    """Down only."""


@value
class WireWindow:
    """One RTP direction of one call in one window of five seconds; the last one may be shorter."""

    direction: str
    """``up``: caller to SFU; ``down``: SFU to caller."""
    since: UnixNs
    until: UnixNs
    packets: int
    """Sent (up) or received, duplicates included (down)."""
    lost: int
    """Down: by which the expected packets outgrew the received ones; negative when late ones come. Up: in the SFU's receiver reports."""
    reordered: int
    duplicates: int
    jitter_s: float | None
    """Interarrival jitter, RFC 3550 6.4.1, at the window's end. Up: from the SFU's receiver reports. None: none came."""
    jitter_max_s: float | None
    rtt_s: tuple[float, ...] = ()
    """Round trips by LSR and DLSR of the SFU's receiver reports (up only)."""
    send_late_max_s: float | None = None
    """How late our latest packet was sent (up only)."""
    rtt_max_at: UnixNs | None = None
    """When the longest of ``rtt_s`` had come back."""


@value
class Control:
    """What an impairment did to one datagram of reports."""

    at: UnixNs
    """When it came to it."""
    has_sender_report: bool
    """It begins with one; a receiver report otherwise."""
    delay_s: float | None
    """None: it was lost."""


@value
class Impaired:
    """What an impairment really did to one direction in one window of five seconds. RTP packets, unless said otherwise."""

    direction: str
    since: UnixNs
    until: UnixNs
    packets: int
    """That came to it."""
    lost: int
    lost_sequences: tuple[int, ...]
    """Sequence numbers of the lost packets, in order; 0 to 65535."""
    duplicated: int
    reordered: int
    """Packets that went on after one sent later."""
    delay_min_s: float | None
    """Delay of those that went on. None: none did."""
    delay_mean_s: float | None
    delay_max_s: float | None
    control_packets: int = 0
    """RTCP."""
    control_lost: int = 0
    late_max_s: float = 0.0
    """How far after its time the latest packet that was held back really left; up only."""
    lost_at: tuple[UnixNs, ...] = ()
    """When each lost packet came to it."""
    jitter_peaks_s: tuple[float, ...] = ()
    """Highest interarrival jitter (RFC 3550 A.8) right behind it, second by second of the window."""
    leading: int = 0
    """Of the lost ones, those before the first packet that ever went on: a receiver cannot miss them."""
    control: tuple[Control, ...] = ()


@value
class Uplink:
    """An impaired uplink: what the SFU's receiver reports said, and what was so at the packet that each of them names; oldest first."""

    reported_jitter_s: tuple[float, ...]
    true_jitter_s: tuple[float, ...]
    """RFC 3550 A.8 over the instants at which packets left the impairment."""
    reported_lost: tuple[int, ...]
    """Cumulative."""
    true_lost: tuple[int, ...]


@value
class AgentStay:
    """One participant of kind AGENT in the room of a call, as the media server told the caller."""

    identity: str
    joined_at: UnixNs
    left_at: UnixNs | None
    """None: it was there until the caller left."""


@value
class Reports:
    """Receiver reports of one RTP direction of one call, oldest first: the SFU's of what we sent (up), ours of what we received (down)."""

    direction: str
    at: tuple[UnixNs, ...]
    """When they came (up), or were sent (down)."""
    rtt_s: tuple[float | None, ...]
    """Round trip by LSR and DLSR (up only). None: the report names no sender report of ours."""
    lost: tuple[int, ...]
    """Cumulative."""
    jitter_s: tuple[float, ...]


@value
class CallRecord:
    """One call as it happened; derived from its plan and its events."""

    plan: CallPlan
    outcome: CallOutcome
    placed_at: UnixNs | None = None
    joined_at: UnixNs | None = None
    """The media path was up."""
    agent_joined_at: UnixNs | None = None
    """The first of ``agents``."""
    agents: tuple[AgentStay, ...] = ()
    """By the instant at which they joined."""
    greeted_at: UnixNs | None = None
    """First word of the greeting. None: none was heard."""
    left_at: UnixNs | None = None
    """Instant at which our leave was sent."""
    turns: tuple[TurnRecord, ...] = ()
    wire: tuple[WireStats, ...] = ()
    windows: tuple[WireWindow, ...] = ()
    """The wire every five seconds, both directions."""
    impaired: tuple[Impaired, ...] = ()
    """What its impairments really did, by direction and time."""
    uplink: Uplink | None = None
    """None: it was not impaired."""
    reports: tuple[Reports, ...] = ()
    """Those of the SFU, always; our own, where the reference engine carried the call: every impaired one."""
    agent_source: str | None = None
    """``source`` of the agent's track, as the SFU's metrics name it: ``MICROPHONE``. None: never told."""
    audio: str | None = None
    """Path of the recording below the run directory: caller left, agent right."""
    audio_started_at: UnixNs | None = None
    """Instant of the recording's first sample."""
    error: str | None = None
    talked_over: tuple[int, ...] = ()
    """Turns whose reply was still going on when the caller barged in; 0: the greeting. Such a reply ended when the agent fell silent."""

    @property
    def is_answered(self) -> bool:
        """The agent was heard at least once."""
        return self.greeted_at is not None or any(turn.first_word_at is not None for turn in self.turns)


@value
class CallEvent:
    """One line of a caller's append-only event file."""

    at: UnixNs
    call_id: str
    kind: str
    fields: Mapping[str, Any]


@value
class GeneratorHealth:
    """What one caller process says of its own punctuality."""

    process: str
    callers: int
    ticks: int
    pacing_p50_ms: float
    pacing_p99_ms: float
    pacing_max_ms: float
    late: tuple[tuple[UnixNs, UnixNs], ...]
    """Intervals in which a media tick was more than 10 ms late."""
    priority: str
    """Scheduling of the media thread: ``SCHED_RR 3``, ``nice -10`` or ``normal``."""
    engine: str
    """``python`` or ``compiled``."""
    cpu_s: float
    """CPU seconds of the whole process."""
    receive_drops: int
    """Datagrams the kernel dropped at our sockets."""
    clock_steps: int
    """Steps of the wall clock against the monotonic one, over 1 ms."""
    loop_p99_ms: float | None = None
    """How late the event loop, in which callers decide what to say when, got to run. None: not measured."""
    loop_max_ms: float | None = None
    wall_s: float | None = None
    """How long the process has run: with ``cpu_s`` its share of a core. None: not measured."""
    peer_drops: int | None = None
    """Datagrams that the kernel dropped at the media server's own sockets while we had calls there: a loss on loopback. None: it runs elsewhere."""
    pacing: tuple[tuple[float, int], ...] = ()
    """How many ticks were at most so many ms late, and later than the edge before. Empty: not written down."""


class Source(enum.StrEnum):
    """One thing we read."""

    AGENT_EXPORTER = "agent-exporter"
    SFU_EXPORTER = "sfu-exporter"
    SFU_API = "sfu-api"
    SFU_REPORTS = "sfu-reports"
    """Its receiver reports to our callers."""
    PROMETHEUS = "prometheus"
    """Raw samples of scraped series."""
    RULES = "rules"
    """Samples that recording rules wrote."""
    ROWS = "rows"
    REALTIME = "realtime"
    AGENT_RULER = "agent-ruler"
    """The reference agent's own clock, apart from all telemetry: what its stages really took."""
    ALERTS = "alerts"
    """States of alerts as Prometheus stored them, and what their expressions yielded over its samples."""
    RECEIVER = "receiver"
    """Deliveries of Alertmanager, in the receiver's own log."""
    FAULTS = "faults"
    """What the drill did: our own truth."""
    PANELS = "panels"
    """What panels showed: their queries and reads, asked as a page asks them."""
    TOOL_ENDPOINT = "tool-endpoint"
    """Ours, which the reference agent's tools call: that they really ran, and with what."""


@value
class Sample:
    """One number that a source said of a series."""

    source: Source
    name: str
    labels: Mapping[str, str]
    value: float
    at: UnixNs
    """Instant of the sample; for an exporter the instant at which our poll began."""
    request: str
    """What finds the line again: a URL without credentials."""


@value
class Row:
    """One row of a table."""

    source: Source
    table: str
    columns: Mapping[str, Any]
    at: UnixNs
    """Instant at which we read it."""
    request: str


@value
class Poll:
    """One successful reading of a source; a source that said nothing is told from one that was never asked."""

    source: Source
    at: UnixNs
    took_s: float
    count: int
    """Samples or rows it returned."""
    request: str
    ours: str = ""
    """The request by our names, where the target has others."""
    total: int | None = None
    """Rows that the server counts for the same request by the same eyes. None: it was not asked, or does not say."""
    total_by_key: int | None = None
    """Rows that it counts for a key that passes by row level security. None: we have no such key."""


@value
class Gap:
    """A source that could not be read."""

    source: Source
    at: UnixNs
    reason: str
    request: str
    ours: str = ""
    """The request by our names, where the target has others."""
    is_blind: bool = False
    """Declared in the target as never readable, with ``reason``: listed, outside the exit code."""


Observation = Sample | Row | Poll


class Status(enum.StrEnum):
    """Three-valued verdict."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"

    @staticmethod
    def worst(statuses: Iterable[Status]) -> Status:
        """FAIL over INCONCLUSIVE over PASS. The worst of nothing is INCONCLUSIVE: nothing was shown."""
        found = set(statuses)
        if Status.FAIL in found:
            return Status.FAIL
        if found == {Status.PASS}:
            return Status.PASS
        return Status.INCONCLUSIVE


class Light(enum.StrEnum):
    """The two questions that a run answers."""

    AGENT = "agent"
    """Did it answer, how fast: on the callers' truth, against limits of the user."""
    MONITORING = "monitoring"
    """Does it tell the truth."""


@value
class Verdict:
    """One claim, judged."""

    claim: str
    """A path, quantity/hop: ``ttfw/exporter``."""
    light: Light
    status: Status
    hop: str
    """The hop in words, for the table: ``agent /metrics, count``."""
    sentence: str
    """What is so, with both numbers, the unit and the budget."""
    says: str
    may_say: str
    would_catch: str
    """The smallest lie that this claim would have caught."""
    is_faithful: bool = False
    """It passed on, correctly, something that an earlier hop got wrong."""
    blind: str | None = None
    """Why the target can never show this: listed, outside the exit code."""
    because: tuple[str, ...] = ()
    """The reasons behind the width of ``may_say``."""
    effect: str | None = None
    """What a reader of the monitoring sees because of it."""
    evidence: tuple[str, ...] = ()
    """Requests and paths that show it again."""
    alpha: float = 0.0
    """Probability that an honest hop falls outside a statistical set; 0 for a bound."""


@value
class PlantedLie:
    """A defect applied to a copy of the observations, and where it was caught."""

    claim: str
    defect: str
    caught_at: tuple[str, ...]
    """Claims that turned red."""

    @property
    def is_caught(self) -> bool:
        return self.claim in self.caught_at

    @property
    def is_localised(self) -> bool:
        return self.caught_at == (self.claim,)


@value
class Part:
    """One part of the stack as it ran."""

    name: str
    version: str
    origin: str
    """``configured``, ``path``, ``cache``, ``built`` or ``package``."""
    location: str
    started_s: float | None = None
    """Seconds from the start of the stack until the part answered."""
    rss_mib: float | None = None
    cpu_s: float | None = None


@value
class Slo:
    """Limits on the agent, on the callers' truth. None: no limit set."""

    answered_ratio: float | None = None
    """At least this share of the calls is answered."""
    ttfw_p50_s: float | None = None
    ttfw_p95_s: float | None = None
    missed_turns: int | None = None
    """At most this many turns without a reply."""
    agent_join_s: float | None = None
    """Each agent is in its room so many seconds after the call was placed."""
    missing_agents: int | None = None
    """At most this many calls without an agent."""
    doubled_agents: int | None = None
    """At most this many calls with two agents at a time."""


@value
class Drill:
    """Faults instead of calls: every alert must fire when it must, be silent when it must, and end."""

    cycles: int
    """How often each is made to fire."""
    near_misses: bool = True
    """Before that: levels just below, and breaches shorter than ``for``."""
    time_scale: float = 15.0
    """Production seconds in one second of the drill."""
    calls: bool = False
    """In each cycle callers lose packets on the wire and wait for a slow agent. At a time scale of 15 only: calls last as long as they last."""
    real_faults: bool = False
    """``--real-faults``: the processors are burnt, memory is held and a small file system is filled, instead of scripting what the exporter says."""


@value
class KneeSearch:
    """A scenario that raises its arrival rate step by step to find where the ``slo`` first breaks."""

    at_least_per_s: float | None = None
    """The limits must hold up to this rate. None: whatever is found will do."""
    abort_on_breach: bool = False
    """No call is placed any more once a step has broken a limit."""


REAL_FAULTS = "alerts/real"
"""The claim that faults were done in earnest."""


@value
class Scenario:
    """What a run does and what it must decide; ``scenarios/*.yaml``."""

    name: str
    summary: str
    path: str
    seed: int
    calls: int
    arrival: Mapping[str, Any]
    """``{model: at-once}``; the other open models of ``harness.load.schedule``."""
    agent_name: str
    greeting: str | None
    turns: tuple[TurnPlan, ...]
    requires: tuple[str, ...]
    """Claims that must be decided."""
    slo: Slo
    asked: tuple[str, ...] = ()
    """``requires`` as it is written: claims, and patterns of which a target shows what it can. Empty: claims only."""
    answer_timeout_s: float = 10.0
    """Longest wait for the agent to join, and for each reply."""
    impairment: str | None = None
    """Name of the profile that ``impairments`` come from. None: there is none, or it was written out."""
    impairments: tuple[Impairment, ...] = ()
    """Of every call."""
    grade: Grade = Grade.FULL
    """Of every call."""
    drill: Drill | None = None
    """None: calls are placed."""
    knee: KneeSearch | None = None
    """None: limits are judged over the whole run."""
    panels: str | None = None
    """Path of the panels to judge. None: those that ship, on our own stack."""
    hang_up: Mapping[str, float] | None = None
    """``every`` n-th call hangs up early, ``after_s`` seconds after its media path was up. None: none does."""
    word_error_ratio: float | None = None
    """Share of the words of a caller's sentence that a recogniser may get wrong. None: none, the agent is scripted."""
    peers: PeerMode = PeerMode.SINGLE
    """Of every call."""

    def is_required(self, claim: str) -> bool:
        """The run must decide it; ``requires`` may hold patterns. What only real faults show they ask for, whatever else is asked for."""
        if claim == REAL_FAULTS:
            return self.drill is not None and self.drill.real_faults
        return any(fnmatchcase(claim, pattern) for pattern in self.requires)


@value
class Prices:
    """What a target's calls cost, as its owner says."""

    per_call: float
    per_agent_minute: float
    currency: str


class Lack(enum.StrEnum):
    """Why a target does not show something."""

    ABSENT = "absent"
    """It does not exist there."""
    FORBIDDEN = "forbidden"
    """It exists, and we may not read it."""
    BLIND = "blind"
    """It can never be shown."""


@value
class Door:
    """What opens an HTTP source besides its address. Credentials are values here and never written to a run directory."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """A tenant, a bearer, a basic credential."""
    ca: str | None = None
    """File of the authority that signed the server's certificate. None: the system's."""
    certificate: str | None = None
    """File of our own certificate. None: we show none."""
    key: str | None = None
    """File of its key."""


@value
class Naming:
    """What a target calls one of our series, or one of our columns."""

    name: str
    scale: float = 1.0
    """What one of theirs is in our unit: 0.001 for milliseconds where we say seconds."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Their label, by ours."""
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Their value, by our label and our value; of a column under the empty label."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Labels by which the series is told from others of its name; they are theirs and not passed on."""


@value
class TableNaming:
    """What a target calls one of our tables, and its columns."""

    name: str
    columns: Mapping[str, Naming] = field(default_factory=dict)


@value
class Names:
    """What a target calls things otherwise than we do, and what it has not. All of it by our own names."""

    metrics: Mapping[str, Naming] = field(default_factory=dict)
    """A histogram by its name without ``_bucket``, ``_sum`` and ``_count``."""
    tables: Mapping[str, TableNaming] = field(default_factory=dict)
    lacking: Mapping[str, str] = field(default_factory=dict)
    """Metrics and tables that the target does not show, with the reason."""
    match: Mapping[str, str] = field(default_factory=dict)
    """Labels that every series of ours has in its Prometheus, which holds others' as well."""


@value
class Target:
    """Where the monitored stack is. Credentials are values here and never written to a run directory."""

    name: str
    livekit_url: str
    livekit_api_key: str
    livekit_api_secret: str
    prometheus_url: str | None
    agent_metrics_url: str | None
    sfu_metrics_url: str | None
    supabase_url: str | None
    supabase_key: str | None
    """A key of the project. Without a token it is also whose rows are read: then it must be one that may read the four tables."""
    blind: Mapping[str, str]
    """Sources that can never be read, by name, with the reason."""
    is_embedded: bool = False
    agent_ruler: str | None = None
    """Path of the file in which the reference agent notes what its stages took. None: this agent notes nothing."""
    tool_log: str | None = None
    """Path of the file in which our endpoint notes what the agent's tools asked of it. None: they call another one."""
    supabase_token: str | None = None
    """Of a role that only reads: ``voxproof_judge``, or a user. None: the key's own role reads."""
    prices: Prices | None = None
    """For the estimate before the first call. None: none were given."""
    lacks: Mapping[str, Lack] = field(default_factory=dict)
    """Of which kind the blindness of a source is, by its name; the reason is in ``blind``."""
    doors: Mapping[str, Door] = field(default_factory=dict)
    """By source: what opens it besides its address."""
    names: Names = field(default_factory=Names)
    is_exclusive: bool = False
    """Nobody but this run calls the agent while the run lasts: its owner says so."""


@value
class Cost:
    """What reading one source put on it: our requests alone."""

    source: Source
    requests: int = 0
    size_bytes: int = 0
    """Of the answers, as they came over the wire."""
    took_s: float = 0.0
    """From each request to the last byte of its answer."""
    items: int = 0
    """Samples or rows in the answers."""


@value
class RunInfo:
    """``run.json``: what was run, with what, against what. No credential ever appears here."""

    run_id: str
    scenario: Scenario
    target: str
    """Name of the target; ``embedded`` for our own stack."""
    argv: tuple[str, ...]
    harness_version: str
    started_at: UnixNs
    load_started_at: UnixNs | None = None
    load_ended_at: UnixNs | None = None
    read_at: UnixNs | None = None
    """Instant after which nothing more was read: the end of the run's window."""
    parts: tuple[Part, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of what the judgement depends on: rule files, panels, scenario."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """``scrape_interval_s``, ``evaluation_interval_s``, ``time_scale`` (production seconds in one second here), other changes."""
    defect: str | None = None
    """Name of the defect seeded on purpose. None: none was."""
    interrupted: str | None = None
    """Why the run ended early: Ctrl-C, a part that died. None: it ended by itself."""
    stopped_after_s: float | None = None
    """Plans due later than this, in seconds of the load, were not placed: a limit was broken, and the scenario asks to stop then. None: all were."""
    note: str | None = None
    cost: tuple[Cost, ...] = ()
    """What collecting put on each source."""


@value
class CalibrationPart:
    """One part of the distance between the latency heard and the latency the agent reports."""

    name: str
    lo_s: float
    hi_s: float
    because: str


@value
class CalibrationFigure:
    """How far one of our own measurements lies from a truth that is known better: measured less true."""

    name: str
    unit: str
    """``s`` or ``packets``."""
    count: int
    bias: float
    """Mean."""
    spread: float
    """Standard deviation."""
    bound: float
    """95 % of the distances, without their signs, are at most this."""
    because: str
    """What was held against what."""


@value
class Calibration:
    """TTFW heard less TTFW reported by an honest agent, bounded by parts.

    Measured once against programmed delays, never on the judged run.
    """

    made_at: str
    """Date, ISO 8601."""
    digest: str
    """SHA-256 of the measurements behind it."""
    method: str
    turns: int
    parts: tuple[CalibrationPart, ...]
    mean_s: float | None = None
    """Mean over all turns. None: not known, so that a mean is bounded no closer than each turn is."""
    turn_sd_s: float = 0.0
    """Standard deviation of a turn inside its run."""
    run_sd_s: float = 0.0
    """Standard deviation of a run's mean beyond what its turns explain: another load of the machine, another phase."""
    runs: int = 0
    figures: tuple[CalibrationFigure, ...] = ()
    """What our own ruler is worth on the machine where this was made."""

    @property
    def lo_s(self) -> float:
        return sum(part.lo_s for part in self.parts)

    @property
    def hi_s(self) -> float:
        return sum(part.hi_s for part in self.parts)


@value
class Evidence:
    """Everything that check judges: one recorded run."""

    info: RunInfo
    plans: tuple[CallPlan, ...]
    records: tuple[CallRecord, ...]
    health: tuple[GeneratorHealth, ...]
    observations: tuple[Observation, ...]
    gaps: tuple[Gap, ...]
    calibration: Calibration | None


@value
class Ruler:
    """Whether our own measurement can be trusted."""

    is_straight: bool
    bent: str | None
    """The limit that bent, with its number. None: straight."""
    pacing_p99_ms: float | None
    void_turns: int
    turns: int


@value
class AgentFigures:
    """How the agent did, on the callers' truth."""

    calls: int
    answered: int
    turns: int
    missed: int
    ttfw_p50_s: float | None
    """Nearest-rank quantiles of the turns that are not void."""
    ttfw_p95_s: float | None
    joined_p50_s: float | None = None
    """From the placing of a call until its agent was in the room. None: no agent joined."""
    joined_max_s: float | None = None
    missing: int = 0
    """Calls that reached the media server and were joined by no agent."""
    doubled: int = 0
    """Calls with two agents at a time."""


@value
class LoadStep:
    """One step of a search for the knee. A call belongs to the step in which it is due, a turn to the one in which its prompt ended."""

    number: int
    per_s: float
    """Arrival rate, planned."""
    at_once: int
    """Most calls in progress at a time."""
    figures: AgentFigures
    void: int
    """Turns that say nothing of latency."""
    broken: tuple[str, ...]
    """Limits of the ``slo`` that did not hold, in words."""
    bent: str | None
    """Why our own load was not what was planned. None: it was."""


@value
class Knee:
    """Where the ``slo`` first breaks: above ``held_per_s``, at or below ``broke_per_s``."""

    steps: tuple[LoadStep, ...]
    held_per_s: float | None
    """Highest rate up to which every step held. None: not even the first did."""
    broke_per_s: float | None
    """Lowest rate that broke a limit. None: none did."""


@value
class Findings:
    """What check concluded; ``verdicts.json``."""

    verdicts: tuple[Verdict, ...]
    planted: tuple[PlantedLie, ...]
    ruler: Ruler
    agent: AgentFigures
    status: Status
    """Of the claims that the scenario requires and of everything that failed."""
    knee: Knee | None = None
    """None: the scenario looks for none."""
