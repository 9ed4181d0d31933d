from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from convert_middleware import wire
from convert_middleware.testing import RecordedTracker
from examples.shop import ids
from examples.shop.app import create_app


@pytest.fixture
def tracker() -> RecordedTracker:
    return RecordedTracker(project_id=ids.PROJECT, customer_id=ids.CUSTOMER)


@pytest.fixture
def visitor(tracker: RecordedTracker) -> TestClient:
    """Somebody at the shop's door."""
    return TestClient(create_app(tracker, "http://127.0.0.1:8070/"))


def test_a_visit_from_landing_to_order_is_told_in_full(visitor: TestClient, tracker: RecordedTracker) -> None:
    visitor.get("/")
    visitor.get("/product/mug")
    visitor.post("/cart", data={"slug": "mug", "number": "2"})
    visitor.get("/checkout")
    thanks = visitor.post("/checkout", data={"name": "Someone"})
    assert "37.00" in thanks.text
    visitor.get("/thanks")
    assert len(tracker.hits) == 5
    assert (len(tracker.exposures), len(tracker.goals)) == (2, 4)
    (order,) = tracker.transactions
    tracker.assert_paid(order.transaction_id, value="37.00")
    assert order.products == 2
    assert tracker.hits[-1].goals[0] == ids.BOUGHT


def ready_to_pay(visitor: TestClient) -> None:
    visitor.get("/")
    visitor.post("/cart", data={"slug": "mug", "number": "2"})


def test_an_order_counts_when_it_is_paid_though_nobody_sees_the_thanks(
    visitor: TestClient, tracker: RecordedTracker
) -> None:
    ready_to_pay(visitor)
    answer = visitor.post("/checkout", data={"name": "Someone"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/thanks")
    tracker.assert_reached(ids.BOUGHT, times=1)
    assert [str(order.value) for order in tracker.transactions] == ["37.00"]


def test_loading_the_thanks_again_sends_nothing(visitor: TestClient, tracker: RecordedTracker) -> None:
    ready_to_pay(visitor)
    visitor.post("/checkout", data={"name": "Someone"}, follow_redirects=False)
    tracker.hits.clear()
    for _ in range(3):
        assert "37.00" in visitor.get("/thanks").text
    tracker.assert_nothing_sent()


def test_a_second_click_on_pay_leads_to_the_same_order(visitor: TestClient, tracker: RecordedTracker) -> None:
    ready_to_pay(visitor)
    with ThreadPoolExecutor(4) as pool:
        clicks = [pool.submit(visitor.post, "/checkout", data={"name": "Someone"}) for _ in range(4)]
    pages = {click.result().text.partition("Order <b>")[2].partition("</b>")[0] for click in clicks}
    assert len(pages) == 1
    tracker.assert_reached(ids.BOUGHT, times=1)
    assert [str(order.value) for order in tracker.transactions] == ["37.00"]


def test_the_headline_stays_the_same_for_one_visitor(visitor: TestClient) -> None:
    seen = {visitor.get("/").headers["X-Shop-Did"] for _ in range(12)}
    assert len(seen) == 1
    presented = json.loads(seen.pop())["presented"][str(ids.HEADLINE)]
    assert presented in ids.HEADLINES


def test_the_foot_of_the_page_says_what_convert_was_told(visitor: TestClient) -> None:
    assert "none yet" in visitor.get("/").text
    page = visitor.get("/product/lamp").text
    assert "Viewed product" in page
    assert "Cart button" in page


@pytest.mark.parametrize(
    ("method", "path", "fields", "status"),
    [
        ("GET", "/nowhere", {}, 404),
        ("GET", "/product/submarine", {}, 404),
        ("GET", "/thanks", {}, 404),
        ("GET", "/checkout", {}, 409),
        ("POST", "/checkout", {"name": "Someone"}, 409),
        ("POST", "/cart", {"slug": "submarine", "number": "1"}, 422),
        ("POST", "/cart", {"slug": "mug", "number": "0"}, 422),
        ("POST", "/cart", {"slug": "mug", "number": "-1"}, 422),
        ("POST", "/cart", {"slug": "mug", "number": "1e3"}, 422),
        ("POST", "/cart", {"slug": "mug", "number": "10"}, 422),
        ("POST", "/cart", {"slug": "mug", "number": "²"}, 422),
        ("POST", "/cart", {"slug": "mug", "number": "001" + "9" * 5000}, 422),
        ("POST", "/newsletter", {"email": "nobody"}, 422),
        ("DELETE", "/", {}, 405),
    ],
)
def test_bad_input_gets_a_friendly_page_and_records_nothing(
    visitor: TestClient,
    tracker: RecordedTracker,
    method: str,
    path: str,
    fields: dict[str, str],
    status: int,
) -> None:
    answer = visitor.request(method, path, data=fields)
    assert answer.status_code == status
    assert "Sorry" in answer.text
    tracker.assert_nothing_sent()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "multipart/form-data; boundary=x"}, 400),
        ({"Content-Type": "multipart/form-data"}, 400),
    ],
)
def test_a_form_that_cannot_be_read_gets_a_friendly_page(
    visitor: TestClient, tracker: RecordedTracker, headers: dict[str, str], status: int
) -> None:
    answer = visitor.post("/cart", content=b"no form at all", headers=headers)
    assert answer.status_code == status
    assert "could not read that form" in answer.text
    tracker.assert_nothing_sent()


def test_a_file_where_text_belongs_gets_a_friendly_page(
    visitor: TestClient, tracker: RecordedTracker
) -> None:
    answer = visitor.post("/cart", data={"number": "1"}, files={"slug": ("mug.txt", b"mug")})
    assert answer.status_code == 422
    assert "could not read that form" in answer.text
    tracker.assert_nothing_sent()


def test_text_of_visitors_is_never_markup(visitor: TestClient) -> None:
    assert "<script>" not in visitor.get("/product/<script>").text
    visitor.post("/cart", data={"slug": "mug", "number": "1"})
    assert "<script>" not in visitor.post("/checkout", data={"name": "<script>"}).text


def test_the_names_for_the_collector_cover_everything_the_shop_records() -> None:
    assert set(ids.NAMES["experiments"]) == {str(ids.HEADLINE), str(ids.BUTTON)}
    assert set(ids.NAMES["variations"]) == {str(key) for key in (*ids.HEADLINES, *ids.BUTTONS)}
    assert wire.decode(f"c={ids.CUSTOMER}&p={ids.PROJECT}").project_id == ids.PROJECT
