"""The door of a source: tenants, tokens and certificates of ours, against a real server; what passing it cost."""

from __future__ import annotations

import datetime as dt
import http.server
import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from harness import door
from harness.door import Meter
from harness.model import Door, Source
from tests.fakes.serving import serving

TEXT = b"voice_agent_turns_total 3\n"
_DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that signs itself, and its key: server, client and authority at once."""
    directory = tmp_path_factory.mktemp("papers")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "key.pem").write_bytes(private)
    return directory


@pytest.fixture
def url(papers: Path) -> Iterator[str]:
    """A server that lets in only who shows the certificate, and of those only team-a."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.headers.get("X-Scope-OrgID") == "team-a" else 403)
            self.send_header("content-length", str(len(TEXT)))
            self.end_headers()
            self.wfile.write(TEXT)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(papers / "cert.pem", papers / "key.pem")
    context.load_verify_locations(papers / "cert.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with serving(Handler, context) as address:
        yield f"https://{address}/metrics"


def opened(papers: Path, **changes: object) -> Door:
    """Everything that opens it. changes: what is otherwise."""
    parts: dict[str, object] = {
        "headers": {"X-Scope-OrgID": "team-a"},
        "ca": str(papers / "cert.pem"),
        "certificate": str(papers / "cert.pem"),
        "key": str(papers / "key.pem"),
    }
    return Door(**(parts | changes))  # type: ignore[arg-type]


def test_a_certificate_and_a_tenant_open_it(papers: Path, url: str) -> None:
    """And the meter says what that cost."""
    meter = Meter(Source.AGENT_EXPORTER)
    with door.client(opened(papers), trust_env=False, timeout_s=5.0, meter=meter) as client:
        answer = client.get(url)

    assert (answer.status_code, answer.content) == (200, TEXT)
    assert (meter.cost.requests, meter.cost.size_bytes) == (1, len(TEXT))
    assert meter.cost.took_s > 0


def test_without_our_certificate_it_stays_shut(papers: Path, url: str) -> None:
    """The server ends the handshake."""
    with (
        door.client(opened(papers, certificate=None, key=None), trust_env=False, timeout_s=5.0) as client,
        pytest.raises(httpx.HTTPError),
    ):
        client.get(url)


def test_another_tenant_is_refused(papers: Path, url: str) -> None:
    """By the server, in words of HTTP."""
    with door.client(opened(papers, headers={"X-Scope-OrgID": "team-b"}), trust_env=False, timeout_s=5.0) as client:
        assert client.get(url).status_code == 403


def test_a_file_that_is_no_certificate_is_told(papers: Path, tmp_path: Path) -> None:
    """Before anything is asked."""
    (tmp_path / "no.pem").write_text("nothing")

    with pytest.raises(ssl.SSLError):
        door.client(opened(papers, certificate=str(tmp_path / "no.pem")), trust_env=False, timeout_s=5.0)
