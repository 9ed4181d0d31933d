"""What a type checker must refuse; an ignore that is not needed is an error of its own."""

from __future__ import annotations

from convert_middleware import ConvertMiddleware, CookieOptions, MemoryOutbox, Settings, Tracker, current
from convert_middleware.hooks import GoalReached
from convert_middleware.testing import RecordedTracker
from tests.typing.use import SECRET, bare, tracker

recorder = current()
recorder.experiment(11)  # type: ignore[call-arg]
recorder.experiment(11.0, 12)  # type: ignore[arg-type]
recorder.goal(None)  # type: ignore[arg-type]
recorder.goal(331, [11])  # type: ignore[call-arg]
recorder.revenue(35, "ab12345", 1599)  # type: ignore[call-arg]
recorder.revenue(35, transaction_id=7, value=1599)  # type: ignore[arg-type]
recorder.revenue(35, transaction_id="7", value=None)  # type: ignore[arg-type]
recorder.revenue(35, transaction_id="7", value=1, products="10")  # type: ignore[arg-type]
recorder.goals = ()  # type: ignore[misc]
recorder.purchase()  # type: ignore[attr-defined]

ConvertMiddleware(bare, project_id="1", customer_id="2", secret_kay=SECRET)  # type: ignore[call-arg]
ConvertMiddleware(bare, tracker=Settings(project_id="1"))  # type: ignore[arg-type]
Settings("1", "2")  # type: ignore[call-arg]
Settings(project_id="1", strict="yes")  # type: ignore[arg-type]
Settings(project_id="1", on_ambiguous="perhaps")  # type: ignore[arg-type]
Settings(project_id="1", hooks=[lambda: None])  # type: ignore[list-item, misc]
CookieOptions(samesite="LAX")  # type: ignore[arg-type]
MemoryOutbox(max_hits="10")  # type: ignore[arg-type]
Tracker(project_id="1")  # type: ignore[call-arg]
RecordedTracker(secret_kay=SECRET)  # type: ignore[call-arg]
RecordedTracker().assert_reached(331, 1)  # type: ignore[call-arg]
RecordedTracker().cookies_for(experiments=[11])  # type: ignore[arg-type]
tracker.stats().accepted = 7  # type: ignore[misc]
GoalReached(visitor="ab", goal_id=331).goal_id = 7  # type: ignore[misc]
