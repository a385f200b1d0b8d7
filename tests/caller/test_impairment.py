"""What a bad network makes of packets: the laws of its decisions, and what is told of them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import profiles
from harness.caller.impairment import Impairer, Path, gilbert
from harness.measure import rtp
from harness.measure.rfc3550 import Receiver
from harness.model import Impairment, UnixNs

FRAME_NS = 20_000_000
SIZE = 113
AT = UnixNs(1_700_000_000_000_000_000)


def up(**fields: Any) -> Impairment:
    return Impairment(direction="up", **fields)


def fates(*impairments: Impairment, packets: int = 1000, seed: int = 7, reports: bool = False) -> list[tuple[int, ...]]:
    """Of so many packets, one in 20 ms. reports: an RTCP packet goes out between every two of them."""
    path = Path(impairments, direction="up", seed=seed)
    found = []
    for number in range(packets):
        found.append(path.fate(number * FRAME_NS, SIZE).delays_ns)
        if reports:
            path.fate(number * FRAME_NS, SIZE, is_media=False)
    return found


def arrivals(found: list[tuple[int, ...]]) -> list[int]:
    """When each packet that was not lost comes out, in the order in which they went in."""
    return [number * FRAME_NS + delays[0] for number, delays in enumerate(found) if delays]


ratios = st.floats(0.0, 0.3)
seconds = st.floats(0.0, 0.2)
stages = st.builds(
    Impairment,
    direction=st.just("up"),
    from_s=st.floats(0.0, 5.0),
    until_s=st.none() | st.floats(5.0, 20.0),
    loss_ratio=ratios,
    burst_packets=st.none() | st.floats(1.0, 10.0),
    lose_every=st.none() | st.integers(2, 50),
    delay_s=seconds,
    jitter_s=seconds,
    keeps_order=st.booleans(),
    reorder_ratio=ratios,
    duplicate_ratio=ratios,
    rate_bps=st.none() | st.floats(10_000, 1_000_000),
    queue_s=seconds,
)
seeds = st.integers(0, 2**32 - 1)


@given(st.lists(stages, max_size=3), seeds, st.booleans())
def test_the_same_seed_decides_the_same(impairments: list[Impairment], seed: int, reports: bool) -> None:
    """Whatever the network; reports in between move nothing, unless they share a bottleneck."""
    if any(stage.rate_bps is not None for stage in impairments):
        reports = False

    assert fates(*impairments, seed=seed, packets=200) == fates(*impairments, seed=seed, packets=200, reports=reports)


@given(st.lists(stages, max_size=3), seeds)
def test_nothing_comes_out_before_it_went_in(impairments: list[Impairment], seed: int) -> None:
    """No delay is negative."""
    assert all(delay >= 0 for delays in fates(*impairments, seed=seed, packets=100) for delay in delays)


@given(st.integers(2, 100), st.integers(1, 500), seeds)
def test_every_nth_loses_exactly(every: int, packets: int, seed: int) -> None:
    """The n-th, 2n-th ...: no dice, and no report is counted."""
    found = fates(up(lose_every=every), packets=packets, seed=seed, reports=True)

    assert [number for number, delays in enumerate(found, start=1) if not delays] == list(range(every, packets + 1, every))


@given(seconds, seconds, ratios, seeds)
def test_order_kept_means_order_kept(delay_s: float, jitter_s: float, loss_ratio: float, seed: int) -> None:
    """However large the jitter: who went in later never comes out earlier."""
    came = arrivals(fates(up(delay_s=delay_s, jitter_s=jitter_s, loss_ratio=loss_ratio), seed=seed, packets=300))

    assert came == sorted(came)


@given(st.floats(0.01, 0.3), seeds)
def test_loss_converges(loss_ratio: float, seed: int) -> None:
    """To its share, within six standard deviations of as many coins."""
    lost = sum(not delays for delays in fates(up(loss_ratio=loss_ratio), packets=5000, seed=seed))

    assert abs(lost / 5000 - loss_ratio) < 6 * (loss_ratio * (1 - loss_ratio) / 5000) ** 0.5


@settings(max_examples=40)  # of 20,000 packets each
@given(st.floats(0.01, 0.3), st.floats(1.0, 8.0), seeds)
def test_bursts_converge(loss_ratio: float, burst_packets: float, seed: int) -> None:
    """Their share of the packets and their mean length; the variance of both grows with the length."""
    found = [not delays for delays in fates(up(loss_ratio=loss_ratio, burst_packets=burst_packets), packets=20_000, seed=seed)]
    bursts = [len(list(run)) for is_lost, run in itertools.groupby(found) if is_lost]

    assert abs(sum(found) / 20_000 - loss_ratio) < 6 * (loss_ratio * 2 * burst_packets / 20_000) ** 0.5
    assert abs(sum(bursts) / len(bursts) - burst_packets) < 6 * burst_packets / len(bursts) ** 0.5


@given(seeds)
def test_duplicates_and_reordering_converge(seed: int) -> None:
    """A tenth comes twice; a tenth is overtaken."""
    found = fates(up(duplicate_ratio=0.1, reorder_ratio=0.1), packets=5000, seed=seed)
    came = arrivals(found)
    overtaken = sum(later < earlier for earlier, later in itertools.pairwise(came))

    assert abs(sum(len(delays) == 2 for delays in found) / 5000 - 0.1) < 0.026
    assert 0.05 < overtaken / 5000 < 0.13


@given(st.floats(8_000, 500_000), st.floats(0.0, 0.5), seeds)
def test_a_bottleneck_passes_no_more_than_its_rate(rate_bps: float, queue_s: float, seed: int) -> None:
    """Over the whole time; nothing waits longer than the queue and its own transmission."""
    found = fates(up(rate_bps=rate_bps, queue_s=queue_s), packets=500, seed=seed)
    came = arrivals(found)
    bits = (SIZE + 28) * 8

    assert len(came) * bits <= rate_bps * came[-1] / 1e9 * (1 + 1e-6)
    assert max(delays[0] for delays in found if delays) / 1e9 <= queue_s + bits / rate_bps + 1e-6


def test_a_bottleneck_that_is_wide_enough_loses_nothing() -> None:
    """56.4 kbit/s of speech on a line of 60."""
    assert all(fates(up(rate_bps=60_000, queue_s=0.0)))


def test_a_schedule_begins_and_ends() -> None:
    """Inclusive and exclusive: an outage of one second loses fifty packets."""
    found = fates(up(from_s=1.0, until_s=2.0, loss_ratio=1.0), packets=200)

    assert [number for number, delays in enumerate(found) if not delays] == list(range(50, 100))


def test_impairments_add_up() -> None:
    """Two delays are one; what the first loses, the second never counts."""
    found = fates(up(delay_s=0.01, lose_every=2), up(delay_s=0.005, lose_every=2), packets=8)

    assert found == [(15_000_000,), (), (), (), (15_000_000,), (), (), ()]


def test_one_setting_does_not_move_another() -> None:
    """The same packets are lost with and without jitter."""
    plain, jittered = (fates(up(loss_ratio=0.1, jitter_s=jitter_s)) for jitter_s in (0.0, 0.03))

    assert [bool(delays) for delays in plain] == [bool(delays) for delays in jittered]


def test_the_other_direction_is_left_alone() -> None:
    """A path of one direction passes over what is meant for the other."""
    assert fates(Impairment(direction="down", loss_ratio=1.0)) == [(0,)] * 1000


def test_reports_are_lost_and_delayed_like_media() -> None:
    """An outage stops them, a delay delays them; they are never numbered or doubled."""
    path = Path([up(delay_s=0.04, lose_every=2, duplicate_ratio=1.0)], direction="up", seed=1)

    assert [path.fate(0, SIZE, is_media=False).delays_ns for _ in range(3)] == [(40_000_000,)] * 3
    assert Path([up(loss_ratio=1.0)], direction="up", seed=1).fate(0, SIZE, is_media=False).delays_ns == ()


def test_independent_losses_are_a_burst_of_their_own_length() -> None:
    """1 / (1 - loss) in a row on average: both settings are one machine."""
    assert gilbert(0.2, None) == pytest.approx(gilbert(0.2, 1.25))


def packet(sequence: int) -> bytes:
    return rtp.FIXED.pack(rtp.VERSION, 111, sequence, sequence * 960, 1) + bytes(100)


def test_what_was_done_is_told_by_windows_of_five_seconds() -> None:
    """Every packet of the first, by number where it was lost; the second is still open until the end."""
    impairer = Impairer([up(lose_every=100, delay_s=0.02)], direction="up", seed=1, since=AT)
    for number in range(260):
        impairer(UnixNs(AT + number * FRAME_NS), packet(number))
    impairer(UnixNs(AT + 259 * FRAME_NS), b"\x80\xc8" + bytes(60))
    impairer.left(300_000)
    (first,) = impairer.windows()
    (second,) = impairer.windows(is_final=True)

    assert (first.direction, first.since, first.until) == ("up", AT, AT + 5_000_000_000)
    assert (first.packets, first.lost, first.lost_sequences) == (250, 2, (99, 199))
    assert (first.delay_min_s, first.delay_mean_s, first.delay_max_s) == (0.02, 0.02, 0.02)
    assert (second.packets, second.lost, second.control_packets, second.late_max_s) == (10, 0, 1, 0.0003)


def test_losses_reports_and_jitter_are_told_with_their_instants() -> None:
    """When each packet was lost, which were lost before the first that went on, what befell each report, the highest jitter of each second."""
    impairer = Impairer([up(lose_every=2, delay_s=0.01), up(loss_ratio=1.0, until_s=0.05)], direction="up", seed=1, since=AT)
    instants = [UnixNs(AT + number * FRAME_NS) for number in range(100)]
    for number, at in enumerate(instants):
        impairer(at, packet(number))
    impairer(instants[50], bytes((0x80, 200)) + bytes(50))
    impairer(instants[51], bytes((0x80, 201)) + bytes(50))
    (window,) = impairer.windows(is_final=True)

    assert (window.lost_at[:3], window.lost_at[-1], window.leading) == ((instants[0], instants[1], instants[3]), instants[99], 2)
    assert [(each.at, each.has_sender_report, each.delay_s) for each in window.control] == [
        (instants[50], True, 0.01),
        (instants[51], False, 0.01),
    ]
    assert window.jitter_peaks_s == (0.0,) * 5


def test_reordering_is_told_as_it_happens() -> None:
    """A packet held back for 50 ms is overtaken by two; it alone is out of order, once."""
    impairer = Impairer([up(reorder_ratio=1.0, until_s=0.001)], direction="up", seed=1, since=AT)
    for number in range(10):
        impairer(UnixNs(AT + number * FRAME_NS), packet(number))
    (window,) = impairer.windows(is_final=True)

    assert window.reordered == 2


@pytest.mark.parametrize("name", profiles.known())
def test_every_profile_does_something_and_leaves_something(name: str) -> None:
    """In a call of 20 s, in one direction at least."""
    for direction in ("up", "down"):
        path = Path(profiles.known()[name], direction=direction, seed=3)
        found = [path.fate(number * FRAME_NS, SIZE).delays_ns for number in range(1000)]
        assert any(found)
        if any(stage.direction == direction for stage in profiles.known()[name]):
            assert any(delays != (0,) for delays in found)


def test_an_observer_behind_the_network_is_told_what_it_must_have_seen() -> None:
    """At each packet that arrived: the jitter of what left, not of what came, and the losses before it."""
    impairer = Impairer([up(lose_every=10, jitter_s=0.03)], direction="up", seed=1, since=AT)
    receiver = Receiver(48_000)
    seen = {}
    for number in range(200):
        at = UnixNs(AT + number * FRAME_NS)
        for delay in impairer(at, packet(number)):
            receiver.arrived(at + delay, number, number * 960)
            reception = receiver.reception()
            assert reception is not None
            seen[number] = (reception.jitter / 48_000, number // 10)

    assert impairer.truth_after(9) is None
    assert {number: impairer.truth_after(number) for number in seen if number < 190} == {n: told for n, told in seen.items() if n < 190}
    assert seen[180][0] > 0.003
