from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .conftest import AGENT, EXAMPLE
from .test_counting import EXAMPLE_SENTENCE

if TYPE_CHECKING:
    import httpx

    from convert_middleware.collector import Collector


def test_a_hit_is_listed_raw_decoded_and_in_words(client: httpx.Client) -> None:
    client.get(f"/track/?{EXAMPLE}")
    (hit,) = client.get("/api/hits").json()["hits"]
    assert hit["sentence"] == EXAMPLE_SENTENCE
    assert [part["kind"] for part in hit["parts"]] == ["exposure", "goals", "order"]
    assert hit["query"].replace("%7C", "|") == EXAMPLE
    assert hit["content"]["exposures"][0] == {
        "experiment": "11",
        "variation": "12",
        "goals": ["331", "33", "34"],
        "new": True,
    }
    assert hit["content"]["transaction"] == {
        "goals": ["35"],
        "id": "ab12345",
        "value": "1599.99",
        "products": 10,
    }
    assert hit["received_at"].endswith("Z")
    assert len(hit["received_at"].partition(".")[2]) == len("123Z")
    assert ["user-agent", AGENT] in hit["headers"]


def test_hits_are_listed_page_by_page(client: httpx.Client) -> None:
    for number in range(1, 8):
        client.get(f"/track/?c=2&p=1&g={number}&ga=1")
    newest = client.get("/api/hits", params={"limit": 2}).json()
    assert [hit["query"] for hit in newest["hits"]] == ["c=2&p=1&g=6&ga=1", "c=2&p=1&g=7&ga=1"]
    seen: list[int] = []
    after = 0
    while page := client.get("/api/hits", params={"after": after, "limit": 3}).json()["hits"]:
        seen += [int(hit["content"]["goals"][0]["goal"]) for hit in page]
        after = page[-1]["id"]
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert after == newest["last_id"]


def test_malformed_and_bots_have_lists_of_their_own(client: httpx.Client) -> None:
    client.get("/track/?c=2")
    client.get("/track/?c=2&p=1", headers={"User-Agent": "curl/8"})
    (malformed,) = client.get("/api/malformed").json()["malformed"]
    (bot,) = client.get("/api/bots").json()["bots"]
    assert (malformed["error"]["parameter"], bot["user_agent"]) == ("p", "curl/8")
    assert "malformed: Parameter 'p'" in malformed["sentence"]
    assert "'curl/8'" in bot["sentence"]


def test_deleting_hits_empties_everything(client: httpx.Client, collector: Collector) -> None:
    for query in (EXAMPLE, "c=2"):
        client.get(f"/track/?{query}")
    assert client.delete("/api/hits").json()["cleared"] is True
    summary = client.get("/api/summary").json()
    assert (summary["experiments"], summary["goals"]) == ({}, {})
    assert set(map(str, summary["totals"].values())) == {"0", "0.00"}
    assert (collector.hits(), collector.malformed()) == ([], [])
    client.get(f"/track/?{EXAMPLE}")
    assert client.get("/api/summary").json()["totals"]["duplicate_transactions"] == 0


def test_the_collector_says_that_it_is_well(client: httpx.Client) -> None:
    assert client.get("/health").json()["status"] == "ok"


WRONG: list[tuple[str, str, int, str]] = [
    ("GET", "/api/hits?after=x", 400, "after"),
    ("GET", "/api/hits?after=-1", 400, "after"),
    ("GET", "/api/hits?after=99999999999999999999", 400, "after"),
    ("GET", "/api/hits?after=9223372036854775808", 400, "after"),
    ("GET", "/api/hits?limit=0", 400, "limit"),
    ("GET", "/api/hits?limit=1001", 400, "limit"),
    ("GET", "/api/hits?limit=1&limit=2", 400, "limit"),
    ("GET", "/api/hits?limit=%C2%B2", 400, "limit"),
    ("GET", "/api/malformed?limit=no", 400, "limit"),
    ("GET", "/api/bots?page=1", 400, "page"),
    ("GET", "/api/summary?x=1", 400, "x"),
    ("DELETE", "/api/hits?after=1", 400, "after"),
    ("GET", "/api/events?recent=501", 400, "recent"),
    ("GET", "/api/events?from=1", 400, "from"),
    ("GET", "/api/nothing", 404, "path"),
    ("GET", "/track", 404, "path"),
    ("GET", "/../../etc/passwd", 404, "path"),
    ("GET", "/page.py", 404, "path"),
    ("POST", "/api/hits", 405, "method"),
    ("PUT", "/api/summary", 405, "method"),
    ("DELETE", "/", 405, "method"),
    ("TRACE", "/health", 405, "method"),
]


@pytest.mark.parametrize(("method", "path", "status", "parameter"), WRONG)
def test_a_wrong_question_gets_an_error_that_names_it(
    client: httpx.Client, method: str, path: str, status: int, parameter: str
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["parameter"] == parameter
    assert error["text"]
    assert error["reason"] in error["message"]


@pytest.mark.parametrize("given", ["x", "-", "abc-x", "-5", "99999999999999999999"])
def test_a_wrong_last_event_id_is_refused(client: httpx.Client, given: str) -> None:
    answer = client.get("/api/events", headers={"Last-Event-ID": given if given != "-5" else "a--5x"})
    assert (answer.status_code, answer.json()["error"]["parameter"]) == (400, "Last-Event-ID")


BAD_FAULTS: list[tuple[Any, str]] = [
    ([], "body"),
    (None, "body"),
    ({"delay": 5}, "delay"),
    ({"delay_ms": -1}, "delay_ms"),
    ({"delay_ms": 60001}, "delay_ms"),
    ({"delay_ms": 1.5}, "delay_ms"),
    ({"delay_ms": True}, "delay_ms"),
    ({"delay_ms": "5"}, "delay_ms"),
    ({"status": 99}, "status"),
    ({"status": 101}, "status"),
    ({"status": 600}, "status"),
    ({"status": 503, "mode": "reset"}, "status"),
    ({"status": 304, "mode": "captive"}, "status"),
    ({"retry_after": "2"}, "retry_after"),
    ({"status": 503, "retry_after": 2}, "retry_after"),
    ({"status": 503, "retry_after": ""}, "retry_after"),
    ({"status": 503, "retry_after": "a\r\nb: c"}, "retry_after"),
    ({"mode": "explode"}, "mode"),
    ({"mode": None}, "mode"),
    ({"mode": []}, "mode"),
    ({"probability": 1.1}, "probability"),
    ({"probability": -0.1}, "probability"),
    ({"probability": "1"}, "probability"),
    ({"probability": False}, "probability"),
    ({"count": 0}, "count"),
    ({"count": 1.0}, "count"),
    ({"record": 1}, "record"),
    ({"record": True, "mode": "refuse"}, "record"),
    ({"seed": "a"}, "seed"),
    ({"seed": 2**63}, "seed"),
]


@pytest.mark.parametrize(("given", "parameter"), BAD_FAULTS)
def test_an_impossible_fault_is_refused_by_name_and_changes_nothing(
    client: httpx.Client, given: Any, parameter: str
) -> None:
    client.put("/api/faults", json={"status": 503})
    answer = client.put("/api/faults", json=given)
    assert (answer.status_code, answer.json()["error"]["parameter"]) == (400, parameter)
    assert client.get("/api/faults").json()["status"] == 503


def test_a_key_that_is_no_valid_text_is_refused_and_shown_escaped(client: httpx.Client) -> None:
    answer = client.put("/api/faults", content=b'{"\\ud800": {"\\udfff": "\\ud800"}}')
    assert (answer.status_code, answer.json()["error"]["parameter"]) == (400, "\\ud800")
    assert client.get("/api/faults").json()["active"] is False


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe\xff", b'{"probability": NaN}', b"[" * 60000, b'{"seed":1' + b" " * 70000]
)
def test_a_body_that_is_no_fault_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.put("/api/faults", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["parameter"] in ("body", "probability")


@pytest.mark.parametrize("path", ["/", "/page.css", "/page.js", "/chart.js", "/icon.svg"])
def test_the_page_needs_nothing_from_elsewhere(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    text = answer.text.replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in text
    assert "https://" not in text
    assert "<style" not in text
    assert "innerHTML" not in text
