"""Simulated visitors of the shop, and the book they keep of what the shop did to them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any

import httpx

from examples.shop.goods import PRODUCTS

# What an HTTP client calls itself by default is on every list of bots.
USER_AGENT = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
)
AT_ONCE = 16  # visitors on the site at the same time


class ShopError(Exception):
    """The shop did what no visitor should see."""


@dataclass(slots=True)
class Book:
    """What should arrive at Convert, by the shop's own account.

    Attributes:
        visitors: Visitors by experiment and variation.
        conversions: Visitors who reached a goal for the first time, by goal.
        credited: The same by experiment, variation and goal, where the experiment had been presented before.
        orders: Value and number of products, by order number.
        earned: Value of orders by experiment and variation, where the experiment had been presented before.
    """

    visitors: Counter[tuple[int, int]] = field(default_factory=Counter)
    conversions: Counter[int] = field(default_factory=Counter)
    credited: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    orders: dict[str, tuple[Decimal, int]] = field(default_factory=dict)
    earned: defaultdict[tuple[int, int], Decimal] = field(
        default_factory=lambda: defaultdict(lambda: Decimal("0.00"))
    )

    @property
    def revenue(self) -> Decimal:
        """The value of all orders."""
        return sum((value for value, _ in self.orders.values()), Decimal("0.00"))

    @property
    def products(self) -> int:
        """The number of products in all orders."""
        return sum(products for _, products in self.orders.values())


class Visitor:
    """One browser with its cookies.

    Args:
        client: The connection pool all visitors share.
        book: Where to write what the shop did.
        random: Decides what the visitor does.
    """

    def __init__(self, client: httpx.AsyncClient, book: Book, random: Random) -> None:
        self._client = client
        self._book = book
        self._random = random
        self._cookies: dict[str, str] = {}
        self._presented: dict[int, int] = {}
        self._reached: set[int] = set()

    async def walk(self) -> None:
        """Go through the shop as people do: most look, some buy, a few come back."""
        random = self._random
        await self._get("/")
        if random.random() < 0.15:
            await self._post("/newsletter", email="someone@example.com")
        if random.random() < 0.8:
            await self._look_and_buy()
        if random.random() < 0.3:
            await self._get("/")
            if random.random() < 0.5:
                await self._look_and_buy()

    async def _look_and_buy(self) -> None:
        random = self._random
        slugs = random.sample(sorted(PRODUCTS), k=random.randint(1, 3))
        await self._get(f"/product/{slugs[0]}")
        # Browsers load pages side by side, as when someone opens links in tabs.
        await asyncio.gather(*[self._get(f"/product/{slug}") for slug in slugs])
        if random.random() < 0.55:
            for slug in slugs:
                await self._post("/cart", slug=slug, number=str(random.randint(1, 3)))
            if random.random() < 0.6:
                await self._get("/checkout")
                if random.random() < 0.8:
                    await self._pay()

    async def _pay(self) -> None:
        random = self._random
        # Some close the window before they see the thanks, some load them again and again.
        thanks = random.choices([0, 1, 3], weights=[1, 7, 2])[0]
        await self._post("/checkout", follow=thanks > 0, name="Someone")
        await asyncio.gather(*[self._get("/thanks") for _ in range(thanks - 1)])

    async def _get(self, path: str) -> None:
        await self._note(await self._client.get(path, headers=self._headers()))

    async def _post(self, path: str, *, follow: bool = True, **fields: str) -> None:
        answer = await self._client.post(path, data=fields, headers=self._headers())
        await self._note(answer, follow=follow)

    def _headers(self) -> dict[str, str]:
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}

    async def _note(self, response: httpx.Response, *, follow: bool = True) -> None:
        """Keep the cookies, write down what the shop says it did, and follow it elsewhere if wanted."""
        for header in response.headers.get_list("set-cookie"):
            name, _, value = header.partition(";")[0].partition("=")
            self._cookies[name] = value
        did: dict[str, Any] = json.loads(response.headers.get("X-Shop-Did", "{}"))
        for experiment, variation in did.get("presented", {}).items():
            self._count_exposure(int(experiment), variation)
        for goal in did.get("reached", []):
            self._count_goal(goal)
        if "paid" in did:
            self._count_order(**did["paid"])
        if response.status_code == 303:
            if follow:
                await self._get(response.headers["location"])
        elif response.status_code != 200:
            raise ShopError(f"The shop answered {response.status_code} to {response.request.url.path}.")

    def _count_exposure(self, experiment: int, variation: int) -> None:
        shown = self._presented.get(experiment)
        if shown is None:
            self._presented[experiment] = variation
            self._book.visitors[experiment, variation] += 1
        elif shown != variation:
            raise ShopError(f"A visitor was shown variations {shown} and {variation} of {experiment}.")

    def _count_goal(self, goal: int) -> None:
        if goal not in self._reached:
            self._reached.add(goal)
            self._book.conversions[goal] += 1
            for experiment, variation in self._presented.items():
                self._book.credited[experiment, variation, goal] += 1

    def _count_order(self, order: str, value: str, products: int) -> None:
        if order not in self._book.orders:
            self._book.orders[order] = Decimal(value), products
            for experiment, variation in self._presented.items():
                self._book.earned[experiment, variation] += Decimal(value)


async def send_visitors(shop: str, number: int, seed: int, done: Callable[[], None]) -> Book:
    """Send visitors through the shop.

    Args:
        shop: Its address.
        number: How many visitors.
        seed: Makes what they do repeatable.
        done: Called when one of them has left.

    Raises:
        ShopError: The shop answered what it should not.
        httpx.HTTPError: The shop could not be reached.
    """
    book, places = Book(), asyncio.Semaphore(AT_ONCE)
    # No proxy of the environment stands between a visitor and a shop on this machine.
    headers = {"User-Agent": USER_AGENT}
    async with httpx.AsyncClient(base_url=shop, headers=headers, timeout=30, trust_env=False) as client:

        async def visit(random: Random) -> None:
            async with places:
                await Visitor(client, book, random).walk()
            done()

        random = Random(seed)
        await asyncio.gather(*[visit(Random(random.random())) for _ in range(number)])
    return book
