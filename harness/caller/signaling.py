"""LiveKit signalling as a sans-IO machine: frames of the websocket in; events, and commands for the shell, out.

Two ways to connect, one machine (protocol facts read from livekit-server 1.13.5):

single  One peer connection. The join request in the URL carries our offer and our track; the server never offers. When it wants another
        negotiation it sends ``media_sections_requirement``, often 0/0: that too means "offer again", or no audio ever comes.
dual    Two peer connections. The server offers its subscriber connection whenever it has something for us; we offer the publisher one.

The shell carries commands out in the order given, each to its end: that order is what serialises offers.
"""

from __future__ import annotations

import base64
import enum
import gzip
import json
from collections.abc import Iterable, Iterator
from urllib.parse import urlencode

from livekit.protocol import models, rtc

from harness import __version__
from harness.model import PeerMode, value

PROTOCOL = 16
"""Signalling protocol that we claim. Real SDKs claim 17: the label ``protocol_version`` of ``livekit_session_*`` tells ours apart."""
PING_S = 5.0
"""Interval of our pings; the server asks for it in its join response and evicts nobody who forgets."""


class Peer(enum.StrEnum):
    """One of our peer connections. In single mode the publisher carries both directions."""

    PUBLISHER = "publisher"
    SUBSCRIBER = "subscriber"


@value
class Send:
    """Command: send this binary frame."""

    frame: bytes


@value
class MakeOffer:
    """Command: offer the publisher connection, with ``free_sections`` unused receiving audio sections at least; then ``offered()``."""

    free_sections: int


@value
class AcceptAnswer:
    """Command: the server's answer to our last offer."""

    sdp: str


@value
class AcceptOffer:
    """Command: the server's offer for the subscriber connection; then ``answered()``."""

    sdp: str
    offer_id: int


@value
class AddCandidate:
    """Command: one ICE candidate of the server."""

    peer: Peer
    candidate: str
    """The attribute's value, without ``candidate:``."""
    mid: str | None
    index: int | None


@value
class Joined:
    """Event: the server let us in."""

    sid: str
    room_sid: str
    server_version: str


@value
class Published:
    """Event: our track has its name on the server."""

    track_sid: str


@value
class AgentJoined:
    """Event: a participant of kind AGENT is in the room."""

    identity: str
    sid: str


@value
class AgentTrack:
    """Event: an agent publishes audio."""

    identity: str
    track_sid: str
    source: str
    """As the server's metrics name it: ``MICROPHONE``."""


@value
class AgentLeft:
    """Event: an agent left the room, or was lost."""

    identity: str
    reason: str
    remaining: int
    """Agents still in the room."""


@value
class ServerLeft:
    """Event: the server told us to leave."""

    reason: str
    action: str


@value
class Refused:
    """Event: the server refused one of our requests, or a subscription."""

    request: str
    reason: str


@value
class Pong:
    """Event: the answer to one of our pings."""

    sent_ms: int
    """What ``ping()`` was given."""


Command = Send | MakeOffer | AcceptAnswer | AcceptOffer | AddCandidate
Event = Joined | Published | AgentJoined | AgentTrack | AgentLeft | ServerLeft | Refused | Pong


class Signaling:
    """The state of one participant's signalling."""

    def __init__(self, *, mode: PeerMode, track_id: str, source: str = "MICROPHONE") -> None:
        """track_id: the id of our track in the offer (second token of its ``a=msid``), by which the server pairs it with ``add_track``.

        source: what our track says it is; the server's metrics are told apart by it.
        """
        self._source = source
        self._mode = mode
        self._track_id = track_id
        self._offers = 0
        self._is_offer_open = False
        self._wanted_sections: int | None = None
        self._agents: dict[str, str] = {}
        self._agent_tracks: set[str] = set()

    def join_path(self, offer_sdp: str | None = None) -> str:
        """Path and query of the websocket. Single mode takes the first offer along; dual mode takes None."""
        if self._mode is PeerMode.DUAL:
            query = {"protocol": PROTOCOL, "auto_subscribe": 1, "sdk": "python", "version": __version__, "os": "linux"}
            return f"/rtc?{urlencode(query)}"
        if offer_sdp is None:
            msg = "single mode joins with an offer"
            raise ValueError(msg)
        request = rtc.JoinRequest(
            client_info=models.ClientInfo(sdk=models.ClientInfo.SDK.PYTHON, protocol=PROTOCOL, version=__version__, os="linux"),
            connection_settings=rtc.ConnectionSettings(auto_subscribe=True),
            add_track_requests=[self._add_track()],
            publisher_offer=self._next_offer(offer_sdp),
        )
        wrapped = rtc.WrappedJoinRequest(
            compression=rtc.WrappedJoinRequest.Compression.GZIP, join_request=gzip.compress(request.SerializeToString(), 1, mtime=0)
        )
        return f"/rtc/v1?join_request={base64.urlsafe_b64encode(wrapped.SerializeToString()).decode()}"

    def receive(self, frame: bytes) -> tuple[Command | Event, ...]:
        """What one frame of the server means. Raises ``google.protobuf.message.DecodeError`` if it is none."""
        response = rtc.SignalResponse.FromString(frame)
        match response.WhichOneof("message"):
            case "join":
                return tuple(self._on_join(response.join))
            case "answer":
                return tuple(self._on_answer(response.answer))
            case "offer":
                return (AcceptOffer(sdp=response.offer.sdp, offer_id=response.offer.id),)
            case "trickle":
                return tuple(self._on_trickle(response.trickle))
            case "media_sections_requirement":
                return tuple(self._want_offer(response.media_sections_requirement.num_audios))
            case "track_published":
                return (Published(track_sid=response.track_published.track.sid),)
            case "update":
                return tuple(self._on_participants(response.update.participants))
            case "leave":
                leave = response.leave
                reason = models.DisconnectReason.Name(leave.reason)
                return (ServerLeft(reason=reason, action=rtc.LeaveRequest.Action.Name(leave.action)),)
            case "pong_resp":
                return (Pong(sent_ms=response.pong_resp.last_ping_timestamp),)
            case "request_response":
                return tuple(self._on_request_response(response.request_response))
            case "subscription_response":
                refusal = response.subscription_response
                return (Refused(request=f"subscription {refusal.track_sid}", reason=models.SubscriptionError.Name(refusal.err)),)
            case _:
                return ()

    def offered(self, sdp: str) -> bytes:
        """The frame that carries the offer which ``MakeOffer`` asked for."""
        return rtc.SignalRequest(offer=self._next_offer(sdp)).SerializeToString()

    def answered(self, sdp: str, offer_id: int) -> bytes:
        """The frame that carries our answer to ``AcceptOffer``."""
        return rtc.SignalRequest(answer=rtc.SessionDescription(type="answer", sdp=sdp, id=offer_id)).SerializeToString()

    def ping(self, now_ms: int) -> bytes:
        """The frame of a ping. now_ms: milliseconds of any clock; ``Pong`` brings it back."""
        return rtc.SignalRequest(ping_req=rtc.Ping(timestamp=now_ms, rtt=0)).SerializeToString()

    def leave(self) -> bytes:
        """The frame with which a caller hangs up. Without it the server keeps a ghost until ICE fails."""
        action = rtc.LeaveRequest.Action.DISCONNECT
        reason = models.DisconnectReason.CLIENT_INITIATED
        return rtc.SignalRequest(leave=rtc.LeaveRequest(reason=reason, action=action)).SerializeToString()

    def _on_join(self, join: rtc.JoinResponse) -> Iterator[Command | Event]:
        yield Joined(sid=join.participant.sid, room_sid=join.room.sid, server_version=join.server_info.version)
        if self._mode is PeerMode.DUAL:
            yield Send(frame=rtc.SignalRequest(add_track=self._add_track()).SerializeToString())
            yield from self._want_offer(0)
        yield from self._on_participants(join.other_participants)

    def _on_answer(self, answer: rtc.SessionDescription) -> Iterator[Command]:
        if not self._is_offer_open or answer.id not in (0, self._offers):
            return
        self._is_offer_open = False
        yield AcceptAnswer(sdp=answer.sdp)
        if self._wanted_sections is not None:
            yield from self._want_offer(self._wanted_sections)

    def _want_offer(self, free_sections: int) -> Iterator[Command]:
        if self._is_offer_open:
            self._wanted_sections = max(free_sections, self._wanted_sections or 0)
            return
        self._is_offer_open = True
        self._wanted_sections = None
        yield MakeOffer(free_sections=free_sections)

    def _on_trickle(self, trickle: rtc.TrickleRequest) -> Iterator[Command]:
        init = json.loads(trickle.candidateInit)
        if not init.get("candidate"):
            return
        is_subscriber = trickle.target == rtc.SignalTarget.SUBSCRIBER
        yield AddCandidate(
            peer=Peer.SUBSCRIBER if is_subscriber else Peer.PUBLISHER,
            candidate=init["candidate"].removeprefix("candidate:"),
            mid=init.get("sdpMid"),
            index=init.get("sdpMLineIndex"),
        )

    def _on_participants(self, participants: Iterable[models.ParticipantInfo]) -> Iterator[Event]:
        for participant in participants:
            if participant.kind != models.ParticipantInfo.Kind.AGENT:
                continue
            identity = participant.identity
            if participant.state == models.ParticipantInfo.State.DISCONNECTED:
                if self._agents.pop(identity, None) is not None:
                    reason = models.DisconnectReason.Name(participant.disconnect_reason)
                    yield AgentLeft(identity=identity, reason=reason, remaining=len(self._agents))
                continue
            if identity not in self._agents:
                self._agents[identity] = participant.sid
                yield AgentJoined(identity=identity, sid=participant.sid)
            for track in participant.tracks:
                if track.type == models.TrackType.AUDIO and track.sid not in self._agent_tracks:
                    self._agent_tracks.add(track.sid)
                    yield AgentTrack(identity=identity, track_sid=track.sid, source=models.TrackSource.Name(track.source))

    def _on_request_response(self, response: rtc.RequestResponse) -> Iterator[Event]:
        if response.reason == rtc.RequestResponse.Reason.OK:
            return
        reason = rtc.RequestResponse.Reason.Name(response.reason)
        yield Refused(
            request=response.WhichOneof("request") or f"request {response.request_id}", reason=f"{reason} {response.message}".strip()
        )

    def _next_offer(self, sdp: str) -> rtc.SessionDescription:
        self._offers += 1
        self._is_offer_open = True
        return rtc.SessionDescription(type="offer", sdp=sdp, id=self._offers)

    def _add_track(self) -> rtc.AddTrackRequest:
        return rtc.AddTrackRequest(
            cid=self._track_id,
            name="microphone",
            type=models.TrackType.AUDIO,
            source=self._source,
            disable_red=True,
            audio_features=[models.AudioTrackFeature.TF_NO_DTX],
        )
