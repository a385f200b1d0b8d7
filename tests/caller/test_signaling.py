"""The signalling machine against frames of a real livekit-server 1.13.5, recorded by ``tests/caller/frames/record.py``."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from google.protobuf.message import DecodeError
from livekit.protocol import models, rtc

from harness.caller.signaling import (
    AcceptAnswer,
    AcceptOffer,
    AddCandidate,
    AgentJoined,
    AgentLeft,
    AgentTrack,
    Joined,
    MakeOffer,
    Peer,
    Pong,
    Published,
    Refused,
    Send,
    ServerLeft,
    Signaling,
)
from harness.model import PeerMode

FRAMES = Path(__file__).parent / "frames"


def replay(name: str, mode: PeerMode = PeerMode.SINGLE) -> list[object]:
    """Everything the machine makes of the server's frames of one recording, each offer made at once."""
    machine = Signaling(mode=mode, track_id="track")
    machine.join_path("v=0" if mode is PeerMode.SINGLE else None)
    effects: list[object] = []
    for line in (FRAMES / f"{name}.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["way"] == "out":
            continue
        for effect in machine.receive(base64.b64decode(entry["frame"])):
            effects.append(effect)
            if isinstance(effect, MakeOffer):
                machine.offered("v=0")
    return effects


def names(effects: list[object]) -> list[str]:
    """The kinds, in order."""
    return [type(effect).__name__ for effect in effects]


def fed(machine: Signaling, **message: object) -> tuple[object, ...]:
    """What the machine makes of one frame built by hand."""
    return machine.receive(rtc.SignalResponse(**message).SerializeToString())  # type: ignore[arg-type]


def joined(mode: PeerMode = PeerMode.SINGLE) -> Signaling:
    """A machine whose first offer has been answered."""
    machine = Signaling(mode=mode, track_id="track")
    machine.join_path("v=0")
    fed(machine, answer=rtc.SessionDescription(type="answer", sdp="v=0", id=1))
    return machine


def agent(state: models.ParticipantInfo.State, identity: str = "agent-1", *tracks: str) -> models.ParticipantInfo:
    """A participant of kind AGENT."""
    return models.ParticipantInfo(
        sid=f"PA_{identity}",
        identity=identity,
        kind=models.ParticipantInfo.Kind.AGENT,
        state=state,
        tracks=[models.TrackInfo(sid=sid, type=models.TrackType.AUDIO) for sid in tracks],
    )


def test_a_single_connection_call_in_order() -> None:
    """Join, our track, the answer, one candidate; then the agent, and the offer that its track needs."""
    assert names(replay("single")) == [
        "Joined",
        "Published",
        "AcceptAnswer",
        "AddCandidate",
        "AgentJoined",
        "AgentTrack",
        "MakeOffer",
        "AcceptAnswer",
        "Pong",
    ]


def test_a_dual_connection_call_in_order() -> None:
    """We announce our track and offer the publisher; the server offers the subscriber, again when the agent's track comes."""
    assert names(replay("dual", PeerMode.DUAL)) == [
        "Joined",
        "Send",
        "MakeOffer",
        "AcceptOffer",
        "AddCandidate",
        "Published",
        "AcceptAnswer",
        "AddCandidate",
        "AgentJoined",
        "AgentTrack",
        "AcceptOffer",
        "Pong",
    ]


def test_the_join_says_who_and_which_server() -> None:
    """Session ids of participant and room, and the server's version, come from the first frame."""
    first = replay("single")[0]

    assert isinstance(first, Joined)
    assert (first.sid[:3], first.room_sid[:3], first.server_version) == ("PA_", "RM_", "1.13.5")


def test_a_forced_renegotiation_asks_for_no_section_and_is_obeyed() -> None:
    """``media_sections_requirement`` of 0/0 still means: offer again."""
    assert MakeOffer(free_sections=0) in replay("single")


def test_candidates_go_to_the_connection_they_are_for() -> None:
    """In dual mode the server trickles one candidate for each connection."""
    peers = [effect.peer for effect in replay("dual", PeerMode.DUAL) if isinstance(effect, AddCandidate)]

    assert peers == [Peer.SUBSCRIBER, Peer.PUBLISHER]


def test_a_candidate_is_handed_on_without_its_attribute_name() -> None:
    """What aiortc parses starts at the foundation."""
    (candidate,) = (effect for effect in replay("single") if isinstance(effect, AddCandidate))

    assert candidate.candidate.split()[1:5] == ["1", "udp", "2130706431", "127.0.0.1"]
    assert (candidate.mid, candidate.index) == ("0", 0)


def test_an_agent_that_leaves_is_told_with_its_reason() -> None:
    """The participant update of a leaving agent carries the reason."""
    (left,) = (effect for effect in replay("agent-leaves") if isinstance(effect, AgentLeft))

    assert left == AgentLeft(identity="agent-frames-agent-leaves", reason="CLIENT_INITIATED", remaining=0)


def test_a_deleted_room_ends_the_call_from_the_servers_side() -> None:
    """The server's leave says why."""
    assert replay("room-deleted")[-1] == ServerLeft(reason="ROOM_DELETED", action="DISCONNECT")


@pytest.mark.parametrize("name", ["single", "dual", "agent-leaves", "room-deleted"])
def test_recordings_hold_no_credential(name: str) -> None:
    """Tokens are dropped and the TURN password is blank."""
    for line in (FRAMES / f"{name}.jsonl").read_text().splitlines():
        entry = json.loads(line)
        frame = base64.b64decode(entry["frame"])

        assert b"eyJ" not in frame
        if entry["kind"] == "join":
            assert rtc.SignalResponse.FromString(frame).join.room.turn_password == ""


def test_the_join_request_carries_track_and_offer() -> None:
    """Single mode: one padded URL-safe parameter holds the compressed request, with our track and our first offer."""
    path = Signaling(mode=PeerMode.SINGLE, track_id="track-7").join_path("v=0\r\noffer")
    (parameter,) = parse_qs(urlsplit(path).query)["join_request"]
    wrapped = rtc.WrappedJoinRequest.FromString(base64.urlsafe_b64decode(parameter))

    request = rtc.JoinRequest.FromString(gzip.decompress(wrapped.join_request))

    assert urlsplit(path).path == "/rtc/v1"
    assert request.publisher_offer == rtc.SessionDescription(type="offer", sdp="v=0\r\noffer", id=1)
    assert [track.cid for track in request.add_track_requests] == ["track-7"]
    assert (request.client_info.protocol, request.connection_settings.auto_subscribe) == (16, True)


def test_dual_mode_joins_without_an_offer() -> None:
    """The older endpoint takes plain parameters."""
    parts = urlsplit(Signaling(mode=PeerMode.DUAL, track_id="track").join_path())

    assert (parts.path, parse_qs(parts.query)["protocol"]) == ("/rtc", ["16"])


def test_dual_mode_announces_the_track_before_it_offers() -> None:
    """The server pairs the track in the offer with the announced one by its id."""
    send, offer = fed(Signaling(mode=PeerMode.DUAL, track_id="track-7"), join=rtc.JoinResponse())[1:]

    assert isinstance(send, Send)
    assert rtc.SignalRequest.FromString(send.frame).add_track.cid == "track-7"
    assert offer == MakeOffer(free_sections=0)


def test_an_offer_waits_for_the_answer_of_the_one_before() -> None:
    """Requirements that arrive while an offer is open become one offer, with the largest need, after its answer."""
    machine = Signaling(mode=PeerMode.SINGLE, track_id="track")
    machine.join_path("v=0")
    for needed in (1, 3, 2):
        assert fed(machine, media_sections_requirement=rtc.MediaSectionsRequirement(num_audios=needed)) == ()

    effects = fed(machine, answer=rtc.SessionDescription(type="answer", sdp="v=1", id=1))

    assert effects == (AcceptAnswer(sdp="v=1"), MakeOffer(free_sections=3))


def test_an_answer_nobody_asked_for_is_passed_over() -> None:
    """A second answer to the same offer, and an answer to an older one, would break the peer connection."""
    machine = joined()

    assert fed(machine, answer=rtc.SessionDescription(type="answer", sdp="v=2", id=1)) == ()


def test_an_answer_to_an_older_offer_is_passed_over() -> None:
    """Offer ids tell an answer that is late from the one that is due."""
    machine = joined()
    fed(machine, media_sections_requirement=rtc.MediaSectionsRequirement())
    machine.offered("v=0")

    assert fed(machine, answer=rtc.SessionDescription(type="answer", sdp="v=1", id=1)) == ()
    assert fed(machine, answer=rtc.SessionDescription(type="answer", sdp="v=2", id=2)) == (AcceptAnswer(sdp="v=2"),)


def test_our_answer_bears_the_number_of_the_servers_offer() -> None:
    """The server drops answers with another number."""
    machine = joined(PeerMode.DUAL)

    assert fed(machine, offer=rtc.SessionDescription(type="offer", sdp="v=0", id=9)) == (AcceptOffer(sdp="v=0", offer_id=9),)
    assert rtc.SignalRequest.FromString(machine.answered("v=1", 9)).answer.id == 9


def test_an_agent_is_announced_once() -> None:
    """Repeated updates of the same participant tell nothing new; a new track does."""
    machine = joined()
    active = models.ParticipantInfo.State.ACTIVE

    told = [
        fed(machine, update=rtc.ParticipantUpdate(participants=[info]))
        for info in (agent(active), agent(active), agent(active, "agent-1", "TR_1"), agent(active, "agent-1", "TR_1"))
    ]

    assert told == [
        (AgentJoined(identity="agent-1", sid="PA_agent-1"),),
        (),
        (AgentTrack(identity="agent-1", track_sid="TR_1", source="UNKNOWN"),),
        (),
    ]


def test_an_agent_already_in_the_room_is_found_in_the_join() -> None:
    """An agent that was faster than the caller."""
    info = agent(models.ParticipantInfo.State.ACTIVE, "agent-1", "TR_1")

    effects = fed(Signaling(mode=PeerMode.SINGLE, track_id="track"), join=rtc.JoinResponse(other_participants=[info]))

    assert names(list(effects)) == ["Joined", "AgentJoined", "AgentTrack"]


def test_an_agent_that_leaves_says_how_many_remain() -> None:
    """Two agents in one room are a known fault of dispatch; the call goes on with the other."""
    machine = joined()
    active, gone = models.ParticipantInfo.State.ACTIVE, models.ParticipantInfo.State.DISCONNECTED
    fed(machine, update=rtc.ParticipantUpdate(participants=[agent(active, "agent-1"), agent(active, "agent-2")]))

    effects = fed(machine, update=rtc.ParticipantUpdate(participants=[agent(gone, "agent-1")]))

    assert effects == (AgentLeft(identity="agent-1", reason="UNKNOWN_REASON", remaining=1),)


def test_other_callers_in_the_room_are_no_agents() -> None:
    """A participant of the standard kind is none of our business."""
    info = models.ParticipantInfo(identity="caller-2", state=models.ParticipantInfo.State.ACTIVE)

    assert fed(joined(), update=rtc.ParticipantUpdate(participants=[info])) == ()


def test_a_refused_request_is_told() -> None:
    """The server's word for a request of ours that it did not carry out."""
    response = rtc.RequestResponse(request_id=3, reason=rtc.RequestResponse.Reason.NOT_ALLOWED, message="no permission")

    assert fed(joined(), request_response=response) == (Refused(request="request 3", reason="NOT_ALLOWED no permission"),)


def test_a_request_that_was_carried_out_is_no_news() -> None:
    """OK is the usual answer."""
    assert fed(joined(), request_response=rtc.RequestResponse(request_id=3)) == ()


def test_a_pong_brings_its_ping_back() -> None:
    """The answer carries the time that the ping was given."""
    machine = joined()
    sent = rtc.SignalRequest.FromString(machine.ping(1_795_000_000_123))

    assert sent.ping_req.timestamp == 1_795_000_000_123
    assert fed(machine, pong_resp=rtc.Pong(last_ping_timestamp=1_795_000_000_123)) == (Pong(sent_ms=1_795_000_000_123),)


def test_leave_is_a_hang_up_of_the_clients_own() -> None:
    """The agent closes its session for this reason and for few others."""
    leave = rtc.SignalRequest.FromString(Signaling(mode=PeerMode.SINGLE, track_id="track").leave()).leave

    assert leave.reason == models.DisconnectReason.CLIENT_INITIATED
    assert leave.action == rtc.LeaveRequest.Action.DISCONNECT


def test_published_names_our_track() -> None:
    """The server's id of our track."""
    (published,) = (effect for effect in replay("single") if isinstance(effect, Published))

    assert published.track_sid.startswith("TR_")


def test_what_is_no_frame_is_refused() -> None:
    """Bytes that are no message raise, and are not passed over."""
    with pytest.raises(DecodeError):
        joined().receive(b"\xff\xff\xff")


def test_single_mode_never_joins_without_an_offer() -> None:
    """The mode is the presence of the offer: forgetting it would silently be the other mode."""
    with pytest.raises(ValueError, match="single mode joins with an offer"):
        Signaling(mode=PeerMode.SINGLE, track_id="track").join_path()
