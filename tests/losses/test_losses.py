"""What gets lost on the way spares and favours no variation."""

from __future__ import annotations

import pytest

from tests.losses.simulation import FATES, Losses, combined, simulate


def test_what_fails_at_random_is_lost_independently_of_the_variation() -> None:
    found = list(simulate(visitors=500, seeds=20))
    assert combined([losses.p for losses in found]) > 0.001
    lost = sum([sum(losses.lost) for losses in found])
    # Only what broke off before it was read; all else that failed was tried again or had arrived.
    assert 10_000 * FATES["unread"] / 1000 == pytest.approx(lost, rel=0.15)


@pytest.mark.parametrize(
    ("lost", "p"), [((500, 500), 1.0), ((450, 550), 0.001), ((500, 550), 0.11), ((300, 600), 0.0)]
)
def test_an_uneven_loss_is_seen(lost: tuple[int, int], p: float) -> None:
    assert Losses(0, (10_000, 10_000), lost).p == pytest.approx(p, abs=0.01)


@pytest.mark.parametrize(
    ("ps", "p"), [([0.5], 0.5), ([0.5, 0.5], 0.597), ([0.05, 0.05], 0.0175), ([0.01] * 5, 1.404e-6)]
)
def test_what_is_seldom_by_chance_together_is_known(ps: list[float], p: float) -> None:
    assert combined(ps) == pytest.approx(p, rel=0.02)
