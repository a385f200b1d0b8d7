"""Defects as data, and the proxies that seed them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from harness.errors import UsageError
from harness.stack import breakage
from harness.stack.breakage import Defect, exporter_rule, rest_rule
from harness.stack.proxy import Answer, Proxy, Request

RULES = Path(__file__).resolve().parents[2] / "deploy" / "monitoring" / "rules" / "recording.yml"


def defect(seam: str, **parameters: Any) -> Defect:
    """A defect by its seam."""
    return Defect(name="d", what="w", seam=seam, parameters=parameters, claim="c/d")


class Upstream:
    """What lies behind a rule: answers all with the same, remembers what arrived."""

    def __init__(self, body: bytes = b"", status: int = 200) -> None:
        self.answer = Answer(status=status, headers={}, body=body)
        self.arrived: list[Request] = []

    def __call__(self, request: Request) -> Answer:
        self.arrived.append(request)
        return self.answer

    @property
    def rows(self) -> list[Any]:
        return [json.loads(request.body) for request in self.arrived]


def post(table: str, row: Any, *, method: str = "POST", prefer: str = "return=minimal") -> Request:
    """A row on its way."""
    return Request(method=method, path=f"/rest/v1/{table}?on_conflict=id", headers={"prefer": prefer}, body=json.dumps(row).encode())


def line(identity: int, role: str = "user") -> dict[str, object]:
    """A row of transcripts."""
    return {"id": identity, "role": role}


def test_the_second_user_line_is_lost() -> None:
    """Only rows that match are counted, only the nth is lost, and its writer is told that it arrived."""
    rule, upstream = rest_rule({"swallow": {"table": "transcripts", "where": {"role": "user"}, "nth": 2}}), Upstream(status=201)
    answers = [rule(post("transcripts", row), upstream) for row in (line(1), line(2, "assistant"), line(3), line(4))]

    assert upstream.rows == [line(1), line(2, "assistant"), line(4)]
    assert [answer.status if answer else None for answer in answers] == [201, 201, 201, 201]


def test_a_lost_row_stays_lost() -> None:
    """A row that is sent again is the same row, and is no other."""
    rule, upstream = rest_rule({"swallow": {"table": "transcripts", "where": {}, "nth": 1}}), Upstream()
    for row in (line(1), line(1), line(2)):
        rule(post("transcripts", row), upstream)

    assert upstream.rows == [line(2)]


def test_one_row_of_a_batch_is_lost() -> None:
    """The other rows of the same request arrive."""
    rule, upstream = rest_rule({"swallow": {"table": "transcripts", "where": {}, "nth": 2}}), Upstream()
    rule(post("transcripts", [line(1), line(2), line(3)]), upstream)

    assert upstream.rows == [[line(1), line(3)]]


@pytest.mark.parametrize(
    ("method", "prefer", "status", "body"),
    [
        ("POST", "return=minimal", 201, b""),
        ("POST", "return=representation", 201, b'{"status": "completed"}'),
        ("PATCH", "return=minimal", 204, b""),
        ("PATCH", "return=representation", 200, b"[]"),
    ],
)
def test_the_writer_is_told_what_it_expects(method: str, prefer: str, status: int, body: bytes) -> None:
    """A swallowed write answers as PostgREST would have."""
    rule, upstream = rest_rule({"swallow": {"table": "calls", "where": {"status": "completed"}}}), Upstream()
    answer = rule(post("calls", {"status": "completed"}, method=method, prefer=prefer), upstream)

    assert answer is not None
    assert (answer.status, answer.body, upstream.arrived) == (status, body, [])


def test_other_requests_pass() -> None:
    """Other tables, reads and rows that do not match are not touched."""
    rule, upstream = rest_rule({"swallow": {"table": "calls", "where": {"status": "completed"}}}), Upstream()
    read = Request(method="GET", path="/rest/v1/calls?select=*", headers={}, body=b"")
    requests = [post("transcripts", line(1)), post("calls", {"status": "active"}), read]
    for request in requests:
        rule(request, upstream)

    assert upstream.arrived == requests


def test_the_exporter_changes_its_unit() -> None:
    """What Prometheus and we read through the proxy is in milliseconds."""
    rule = exporter_rule({"multiply": {"metric": "ttfw", "by": 1000}})
    answer = rule(Request(method="GET", path="/metrics", headers={}, body=b""), Upstream(b"ttfw_sum 1.5\n"))

    assert answer is not None
    assert answer.body == b"ttfw_sum 1500.0\n"


def test_the_exporter_withholds_a_metric() -> None:
    """Every line of it, and no other."""
    rule = exporter_rule({"withhold": {"metric": "lost_total"}})
    text = b'# TYPE lost_total counter\nlost_total{a="b"} 1\nlost_total_more 2\n'
    answer = rule(Request(method="GET", path="/metrics", headers={}, body=b""), Upstream(text))

    assert answer is not None
    assert answer.body == b"# TYPE lost_total counter\nlost_total_more 2\n"


@pytest.mark.parametrize(("seam", "place"), [("exporter-proxy", "before_exporter"), ("sfu-proxy", "before_sfu_exporter")])
def test_a_proxy_stands_before_one_exporter(seam: str, place: str, tmp_path: Path) -> None:
    """The agent's, or the media server's; the other is read as it is."""
    with breakage.seams(defect(seam, withhold={"metric": "m"}), scratch=tmp_path) as seams:
        for name in ("before_exporter", "before_sfu_exporter"):
            assert (getattr(seams, name)("127.0.0.1:8080") == "127.0.0.1:8080") is (name != place)


@pytest.mark.parametrize(("turns", "is_open"), [(2, True), (3, False)])
def test_the_exporter_stops_at_its_turn(turns: int, is_open: bool) -> None:
    """It serves until the count is reached."""
    rule = exporter_rule({"stop_once": {"metric": "turns_total", "labels": {"role": "user"}, "at_least": 3}})
    text = f'turns_total{{role="user"}} {turns}\nturns_total{{role="assistant"}} 9\n'.encode()
    answer = rule(Request(method="GET", path="/metrics", headers={}, body=b""), Upstream(text))

    assert (answer is not None) is is_open


@contextmanager
def chain(rule_of_the_first: Any) -> Iterator[httpx.Client]:
    """A client before a proxy before a proxy that answers by itself."""

    def answers(request: Request, _: object) -> Answer:
        return Answer(status=207, headers={"x-seen": request.headers.get("x-sent", "")}, body=request.method.encode() + request.body)

    last = Proxy("http://127.0.0.1:9", answers)
    first = Proxy(f"http://{last.address}", rule_of_the_first)
    try:
        with httpx.Client(base_url=f"http://{first.address}", trust_env=False, timeout=5) as client:
            yield client
    finally:
        first.close()
        last.close()


def test_a_proxy_passes_on() -> None:
    """Method, headers and body arrive; status, headers and body come back; connections are reused."""
    with chain(lambda request, forward: forward(request)) as client:
        answers = [client.post("/a?b=c", content=b"row", headers={"x-sent": "yes"}) for _ in range(3)]

    assert [(answer.status_code, answer.headers["x-seen"], answer.content) for answer in answers] == [(207, "yes", b"POSTrow")] * 3


def test_a_proxy_can_go_away() -> None:
    """After a None the port is closed: the next client is refused, as by a stopped exporter."""
    with chain(lambda request, forward: None) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/metrics")
        for _ in range(100):
            try:
                client.get("/metrics")
            except httpx.ConnectError:
                break
            except httpx.HTTPError:
                continue
        else:
            pytest.fail("still listening")


def test_a_rule_is_replaced_by_name() -> None:
    """Only the named record gets another expression."""
    seed = breakage.rules_seed(defect("rules", expressions={"voice_agent:ttfw_seconds:p95": "vector(1)"}))
    document = yaml.safe_load(RULES.read_text())

    def expressions(rules: Mapping[str, Any]) -> dict[str, str]:
        return {rule["record"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]}

    assert expressions(seed(document)) == {**expressions(document), "voice_agent:ttfw_seconds:p95": "vector(1)"}


def test_without_a_defect_nothing_is_between(tmp_path: Path) -> None:
    """No proxy, no variable, no file."""
    with breakage.seams(None, scratch=tmp_path) as seams:
        assert seams.before_exporter("127.0.0.1:8080") == "127.0.0.1:8080"
        assert seams.before_rest("http://127.0.0.1:1") == "http://127.0.0.1:1"
        assert seams.agent_environment() == {}


def test_variables_name_places(tmp_path: Path) -> None:
    """A defect's variables may point into the scratch directory and to the mutants."""
    with breakage.seams(
        defect("agent-env", environment={"PYTHONPATH": "{mutants}/agent", "DIR": "{scratch}/x"}), scratch=tmp_path
    ) as seams:
        assert seams.agent_environment() == {"PYTHONPATH": f"{breakage.MUTANTS}/agent", "DIR": f"{tmp_path}/x"}


def test_files_vanish_as_they_appear(tmp_path: Path) -> None:
    """The directory exists and stays empty, while who has a file open does not notice."""
    seeded = defect("files", environment={"PROMETHEUS_MULTIPROC_DIR": "{scratch}/multiproc"}, wipe="PROMETHEUS_MULTIPROC_DIR")
    with breakage.seams(seeded, scratch=tmp_path) as seams:
        directory = Path(seams.agent_environment()["PROMETHEUS_MULTIPROC_DIR"])
        with (directory / "counter_1.db").open("w") as kept:
            while (directory / "counter_1.db").exists():
                pass
            kept.write("still writable")

        assert list(directory.iterdir()) == []


def test_an_unknown_defect_is_named_with_the_known() -> None:
    """A typo gets the list."""

    with pytest.raises(UsageError, match=r"no defect 'ttfw-in-m'; there are .*ttfw-in-ms"):
        breakage.load("ttfw-in-m")


def test_the_catalogue_is_issue_three() -> None:
    """The defects that this issue promises, each with the claim that it turns red."""

    assert {each.name for each in breakage.catalogue()} >= {
        "transcript-row-lost",
        "ttfw-in-ms",
        "ttfw-missing-for-tools",
        "ttfw-plus-300ms",
        "exporter-stopped",
        "multiproc-dir-missing",
        "rule-without-rate",
        "call-never-closed",
    }
    assert all(each.claim.count("/") == 1 for each in breakage.catalogue())


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{name: a, what: w, seam: magic, parameters: {}, claim: c/d}", "unknown seam 'magic'"),
        ("{name: b, what: w, seam: rules, parameters: {}, claim: c/d}", "is named 'b' inside; wanted 'a'"),
        ("{name: a, what: w, seam: rules, parameters: {}}", "wanted name, what, seam, parameters, claim"),
    ],
)
def test_a_broken_mutant_file_is_named(text: str, wrong: str, tmp_path: Path) -> None:
    """File and fault, before anything starts."""
    (tmp_path / "a.yaml").write_text(text)

    with pytest.raises(UsageError, match=wrong):
        breakage.load("a", tmp_path)


def test_what_a_defect_does_to_the_database_is_sql() -> None:
    """Run when it has been migrated; other seams have none."""
    assert breakage.statements(defect("database", statements=["select 1"])) == ("select 1",)
    assert breakage.statements(defect("rules", expressions={})) == ()
