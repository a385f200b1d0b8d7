"""RTP on loopback as the kernel saw it: truth that shares nothing with the media engine."""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LOUD_BYTES = 40
"""Payload and tag of 16 bytes: silence is 3 bytes, speech at 32 kbit/s mostly 40 to 120."""
PAUSE_PACKETS = 15
_SO_ATTACH_FILTER, _SO_TIMESTAMPNS = 26, 35
_UDP_HEADER, _RTP_HEADER = 8, 12


@dataclass(frozen=True)
class Packet:
    """One RTP packet as the kernel saw it."""

    at_ns: int
    source: int
    target: int
    sequence: int
    timestamp: int
    size: int
    """Of payload and SRTP tag."""


class Capture:
    """RTP to and from one UDP port on loopback, as packets arrive at their sockets. Raises PermissionError without CAP_NET_RAW."""

    def __init__(self, port: int, least_bytes: int = 0) -> None:
        """least_bytes: smaller payloads with their tag are passed over by the kernel, so that a hundred callers can be watched."""
        self.packets: list[Packet] = []
        self._port = port
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        self._socket.bind(("lo", 0))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        self._filter(_UDP_HEADER + _RTP_HEADER + least_bytes)
        self._socket.settimeout(0.2)
        self._is_over = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """What arrived until now is in ``packets``."""
        self._is_over = True
        self._thread.join()
        self._socket.close()

    def _filter(self, least_udp_bytes: int) -> None:
        """Arrivals only (each datagram is seen leaving, too), UDP, from or to the port, of some length."""
        byte, half, word, mask, equal, least, answer = 0x30, 0x48, 0x20, 0xB1, 0x15, 0x35, 0x06
        program = (
            (byte, 0, 0, 9),
            (equal, 0, 9, socket.IPPROTO_UDP),
            (word, 0, 0, 0xFFFFF004),  # SKF_AD_OFF + SKF_AD_PKTTYPE
            (equal, 0, 7, socket.PACKET_HOST),
            (mask, 0, 0, 0),
            (half, 0, 0, 0),
            (equal, 2, 0, self._port),
            (half, 0, 0, 2),
            (equal, 0, 2, self._port),
            (half, 0, 0, 4),
            (least, 1, 0, least_udp_bytes),
            (answer, 0, 0, 0),
            (answer, 0, 0, 1 << 18),
        )
        code = b"".join(struct.pack("HBBI", *step) for step in program)
        kept = ctypes.create_string_buffer(code)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(kept)))

    def _read(self) -> None:
        while not self._is_over:
            try:
                datagram, control, _, _ = self._socket.recvmsg(2048, 64)
            except TimeoutError:
                continue
            seconds, nanoseconds = struct.unpack("qq", control[0][2][:16])
            self._take(seconds * 1_000_000_000 + nanoseconds, datagram[(datagram[0] & 15) * 4 :])

    def _take(self, at_ns: int, udp: bytes) -> None:
        source, target = struct.unpack_from("!HH", udp)
        rtp = udp[_UDP_HEADER:]
        if len(rtp) < _RTP_HEADER or rtp[0] >> 6 != 2 or 192 <= rtp[1] <= 223 or rtp[0] & 0x20:
            return
        head = _RTP_HEADER + 4 * (rtp[0] & 15)
        if rtp[0] & 0x10:
            head += 4 + 4 * int.from_bytes(rtp[head + 2 : head + 4], "big")
        sequence, timestamp = struct.unpack_from("!HI", rtp, 2)
        self.packets.append(Packet(at_ns, source, target, sequence, timestamp, len(rtp) - head))


def bursts(packets: Sequence[Packet]) -> list[list[Packet]]:
    """Loud packets, in runs that no pause interrupts."""
    runs: list[list[Packet]] = []
    last = None
    for packet in packets:
        if packet.size < LOUD_BYTES:
            continue
        if last is None or (packet.sequence - last.sequence) % 65536 > PAUSE_PACKETS:
            runs.append([])
        runs[-1].append(packet)
        last = packet
    return runs


def sample_ns(packets: Sequence[Packet], first: Packet, sample: int) -> int | None:
    """When sample number ``sample`` of a clip was at the socket, of which ``first`` holds samples 0 to 959. None: its packet was not seen."""
    number, offset = divmod(sample, 960)
    wanted = (first.sequence + number) % 65536
    found = next((packet.at_ns for packet in packets if packet.sequence == wanted and packet.at_ns >= first.at_ns), None)
    return None if found is None else found + offset * 1_000_000_000 // 48_000


def sockets_of(pid: int) -> set[int]:
    """Local UDP ports of a process."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            name = str(entry.readlink())
        except OSError:
            continue
        if name.startswith("socket:["):
            inodes.add(name[8:-1])
    lines = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return {int(fields[1].rpartition(":")[2], 16) for fields in lines if fields[9] in inodes}
