"""What only the outbox in Redis has to do: answers that get lost, dead machines, claims that travel along."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from traceback import format_exception
from typing import TYPE_CHECKING, Final

import pytest

from convert_middleware import Settings, Tracker
from convert_middleware.delivery import Counts, Entry, Receipt, ShelteredOutbox, Worth
from convert_middleware.delivery.redis_ledger import RedisLedger
from convert_middleware.delivery.redis_link import RedisLink
from convert_middleware.delivery.redis_streams import RedisOutbox
from convert_middleware.errors import OutboxError, SettingsError, UnreachableError
from convert_middleware.model import Transaction
from tests.redis_server import RedisServer
from tests.servers import refused_port

from .conftest import balanced

if TYPE_CHECKING:
    from collections.abc import Callable

NOW: Final = 1_800_000_000.0
NUMBERS: Final = count()
ORDER: Final = Transaction(goals=(35,), transaction_id="ab12345", value="1599.99", products=10)  # type: ignore[arg-type] # as a caller may


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def prefix() -> str:
    return f"outbox-{next(NUMBERS)}"


class Line:
    """A way to Redis that can lose what it carries."""

    def __init__(self, port: int) -> None:
        self.leads_to = port
        self.port = 0
        self.cut_after: Callable[[bytes], bool] = lambda _question: False
        self.held_up: Callable[[bytes], bool] = lambda _question: False
        self.may_arrive = asyncio.Event()
        self.arrived = asyncio.Event()
        self.lost = 0
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry questions and answers, until one of the answers is to be lost."""
        redis, to_redis = await asyncio.open_connection("127.0.0.1", self.leads_to)
        with suppress(ConnectionError):
            while question := await reader.read(1 << 20):
                lose = self.cut_after(question)
                late = self.held_up(question)
                if late:
                    await self.may_arrive.wait()
                to_redis.write(question)
                answer = await redis.read(1 << 20)
                if late:
                    self.arrived.set()
                self.asked.set()
                await self.may_answer.wait()
                if lose:
                    self.lost += 1
                    break
                writer.write(answer)
        for end in (writer, to_redis):
            end.close()
            with suppress(ConnectionError):
                await end.wait_closed()


@asynccontextmanager
async def line(server: RedisServer) -> AsyncIterator[Line]:
    way = Line(server.port)
    listening = await asyncio.start_server(way.carry, "127.0.0.1", 0)
    way.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield way


def once(what: str) -> Callable[[bytes], bool]:
    """Return what tells the first question of this kind."""
    left = [what.encode()]

    def matches(question: bytes) -> bool:
        if left and b"\r\n" + left[0] + b"\r\n" in question:
            left.clear()
            return True
        return False

    return matches


@pytest.mark.parametrize("step", ["put", "take", "back", "commit", "next"])
def test_a_step_whose_answer_gets_lost_happens_once(server: RedisServer, prefix: str, step: str) -> None:
    async def story() -> Counts:
        async with line(server) as way:
            outbox = RedisOutbox(way.url, prefix=prefix)
            await outbox.commit()
            await outbox.put([Entry("before", Worth.GOAL, NOW)])
            way.cut_after = once(step)
            await outbox.put([Entry(f"{number}", Worth.GOAL, NOW) for number in range(5)])
            assert await outbox.next_due() == 0.0
            taken = await outbox.take(10, NOW)
            assert [entry.text for entry in taken] == ["before", "0", "1", "2", "3", "4"]
            await outbox.retry(taken[0], NOW)
            for entry in taken[1:3]:
                await outbox.settle(entry)
            await outbox.bury(taken[3], "status 404")
            await outbox.commit()
            assert way.lost == 1
            (again,) = await outbox.take(10, NOW)
            assert again.text == "before"
            counts = outbox.counts()
            await outbox.close()
            return counts

    assert asyncio.run(story()) == Counts(6, delivered=2, waiting=0, in_flight=3, dead=1)
    assert server.say("XLEN", f"{{{prefix}}}:dead") == ":1"


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("step", ["put", "take", "back", "commit"])
def test_a_step_that_arrives_after_it_was_given_up_does_not_happen(
    server: RedisServer, prefix: str, step: str, ends: bool
) -> None:
    """As where a packet is lost and the connection closed before it is sent again."""

    async def story() -> list[str]:
        async with line(server) as way:
            outbox = RedisOutbox(way.url, prefix=prefix)
            await outbox.put([Entry("before", Worth.GOAL, NOW)])
            (before,) = await outbox.take(1, NOW)
            way.held_up = once(step)
            await outbox.put([Entry(f"{number}", Worth.GOAL, NOW) for number in range(3)])
            await outbox.retry(before, NOW)
            await outbox.renew(NOW)
            sent = []
            if ends:
                while taken := await outbox.take(10, NOW):
                    sent += [entry.text for entry in taken]
                    for entry in taken:
                        await outbox.settle(entry)
                await outbox.close()
            elif step == "take":
                sent += [entry.text for entry in await outbox.take(2, NOW)]
            way.may_arrive.set()
            await asyncio.wait_for(way.arrived.wait(), 10)
            other = RedisOutbox(server.url, prefix=prefix)
            left = other if ends else outbox
            while taken := await left.take(10, NOW):
                sent += [entry.text for entry in taken]
            assert left.counts().waiting == 0
            assert await left.next_due() is None or not ends
            await left.close()
            await other.link.close()
            return sent

    assert sorted(asyncio.run(story())) == ["0", "1", "2", "before"]
    assert server.say("XLEN", f"{{{prefix}}}:hits:1") == ":0"


def test_a_dead_letter_is_written_once_however_often_somebody_looks_for_hits(
    server: RedisServer, prefix: str
) -> None:
    async def story() -> None:
        outbox = RedisOutbox(server.url, prefix=prefix)
        await outbox.put([Entry("hit", Worth.GOAL, NOW)])
        (entry,) = await outbox.take(1, NOW)
        await outbox.bury(entry, "status 404")
        for _ in range(3):
            await outbox.next_due()
        await outbox.commit()
        await outbox.close()

    asyncio.run(story())
    assert server.say("XLEN", f"{{{prefix}}}:dead") == ":1"


def test_hits_whose_answer_got_lost_while_redis_went_away_are_neither_put_nor_sent_twice(
    server: RedisServer, prefix: str
) -> None:
    async def story() -> None:
        async with line(server) as way:
            errors: list[object] = []
            outbox = ShelteredOutbox(RedisOutbox(way.url, prefix=prefix), errors.append)
            dark = [False]
            way.cut_after = lambda _question: dark[0]
            await outbox.put([Entry("before", Worth.GOAL, NOW)])
            dark[0] = True
            await outbox.put([Entry(f"{number}", Worth.GOAL, NOW) for number in range(5)])
            assert len(errors) == 1
            assert outbox.counts() == Counts(6, waiting=1, in_flight=5)
            assert await outbox.take(20, NOW) == []  # they wait in Redis, where others take them
            dark[0] = False
            await outbox.keep(NOW + 60)
            taken = await outbox.take(20, NOW + 60)
            assert Counter(entry.text for entry in taken) == Counter(["before", "0", "1", "2", "3", "4"])
            assert errors[1:] == [None]
            for entry in taken:
                await outbox.settle(entry)
            await outbox.leave(NOW + 60)
            assert outbox.counts() == Counts(6, delivered=6)

    asyncio.run(story())


def test_retries_that_redis_could_not_note_are_noted_once_by_whoever_comes_first(
    server: RedisServer, prefix: str
) -> None:
    async def story() -> None:
        async with line(server) as way:
            outbox = ShelteredOutbox(RedisOutbox(way.url, prefix=prefix), lambda _: None)
            await outbox.put([Entry(f"{number}", Worth.GOAL, NOW) for number in range(4)])
            taken = await outbox.take(4, NOW)
            way.cut_after = lambda _question: True
            for entry in taken:
                await outbox.retry(entry, NOW)
            assert outbox.counts() == Counts(4, in_flight=4)
            way.cut_after = lambda _question: False
            _, one, other = await asyncio.gather(
                outbox.keep(NOW + 60), outbox.take(2, NOW + 60), outbox.take(2, NOW + 60)
            )
            assert sorted(entry.text for entry in (*one, *other)) == ["0", "1", "2", "3"]
            for entry in (*one, *other):
                await outbox.settle(entry)
            await outbox.leave(NOW + 60)
            assert outbox.counts() == Counts(4, delivered=4)

    asyncio.run(story())


@pytest.mark.parametrize("waits", [False, True], ids=["bringing", "fetching"])
def test_a_lane_that_is_cancelled_while_redis_answers_loses_no_hit(
    server: RedisServer, prefix: str, *, waits: bool
) -> None:
    async def story() -> None:
        async with line(server) as way:
            outbox = ShelteredOutbox(RedisOutbox(way.url, prefix=prefix), lambda _: None)
            await outbox.put([Entry("before", Worth.GOAL, NOW)] if waits else [])
            await outbox.next_due()
            if not waits:
                outbox.offer(Entry("before", Worth.GOAL, NOW))
            way.may_answer.clear()
            way.asked.clear()
            lane = asyncio.create_task(outbox.take(1, NOW))
            await way.asked.wait()
            lane.cancel()
            await asyncio.gather(lane, return_exceptions=True)
            way.may_answer.set()
            await outbox.leave(NOW)
            assert outbox.counts() == Counts(1, waiting=1)
            assert outbox.in_memory() == 0

    asyncio.run(story())


def test_hits_that_never_reached_redis_leave_from_memory(prefix: str) -> None:
    async def story(port: int) -> None:
        store = RedisOutbox(f"redis://127.0.0.1:{port}/0", prefix=prefix)
        outbox = ShelteredOutbox(store, lambda _: None)
        await outbox.put([Entry(f"{number}", Worth.GOAL, NOW) for number in range(5)])
        taken = await outbox.take(20, NOW)
        assert [entry.text for entry in taken] == ["0", "1", "2", "3", "4"]
        for entry in taken:
            await outbox.settle(entry)
        await outbox.leave(NOW)
        assert outbox.counts() == Counts(5, delivered=5)

    with refused_port() as port:
        asyncio.run(story(port))


def test_a_visitor_withdraws_a_retry_that_redis_noted_although_its_answer_got_lost(
    server: RedisServer, prefix: str
) -> None:
    anna = "a" * 32

    async def story() -> None:
        async with line(server) as way:
            errors: list[object] = []
            outbox = ShelteredOutbox(RedisOutbox(way.url, prefix=prefix), errors.append)
            await outbox.put([Entry("hit", Worth.GOAL, NOW, visitor=anna, receipt=Receipt(anna, (), (1,)))])
            (tried,) = await outbox.take(1, NOW)
            asked: list[bytes] = []  # what noted the retry, and what asks whether it was noted

            def cut(question: bytes) -> bool:
                asked.extend([question] if asked or b"\r\nback\r\n" in question else [])
                return bool(asked)

            way.cut_after = cut
            await outbox.retry(tried, NOW)
            assert len(errors) == 1
            way.cut_after = lambda _question: False
            assert await outbox.purge(anna) == 1
            assert outbox.counts() == Counts(1, dropped={"withdrawn": 1})
            await outbox.leave(NOW + 60)
            assert outbox.counts() == Counts(1, dropped={"withdrawn": 1})

    asyncio.run(story())


def test_what_a_dead_machine_held_is_in_doubt_and_what_it_left_waiting_is_not(
    server: RedisServer, prefix: str
) -> None:
    async def story(*, repeat: bool) -> tuple[list[str], Counts]:
        own = f"{prefix}-{repeat}"
        dead = RedisOutbox(server.url, prefix=own, lease=0.2)
        await dead.put([Entry(f"{number}", Worth.GOAL, NOW + number) for number in range(4)])
        held = await dead.take(3, NOW + 9)
        await dead.retry(held[2], NOW + 20)
        await dead.link.close()  # its process was killed
        await asyncio.sleep(0.3)  # leases run on the clock of the server

        heir = RedisOutbox(server.url, prefix=own, lease=0.2, repeat_expired=repeat)
        found: list[Entry] = []
        deadline = asyncio.get_running_loop().time() + 5.0
        while len(found) + sum(heir.counts().dropped.values()) < 4:
            assert asyncio.get_running_loop().time() < deadline
            found += await heir.take(10, NOW + 30)
            await asyncio.sleep(0.02)
        for entry in found:
            await heir.settle(entry)
        counts = heir.counts()
        await heir.close()
        return sorted(entry.text for entry in found), counts

    assert asyncio.run(story(repeat=False)) == (
        ["2", "3"], Counts(4, delivered=2, dropped={"interrupted": 2})
    )  # fmt: skip
    assert asyncio.run(story(repeat=True)) == (["0", "1", "2", "3"], Counts(4, delivered=4))


def test_hits_in_flight_when_redis_loses_its_data_end_as_they_end_and_harm_no_others(prefix: str) -> None:
    async def story(server: RedisServer) -> None:
        outbox = RedisOutbox(server.url, prefix=prefix)
        await outbox.put([Entry(f"{number}", Worth.GOAL, NOW) for number in range(4)])
        delivered, tried = await outbox.take(2, NOW)
        server.say("FLUSHALL")
        with pytest.raises(OutboxError, match="its data are gone"):
            await outbox.renew(NOW)
        assert outbox.counts() == Counts(4, in_flight=2, dropped={"store lost": 2})
        await outbox.put([Entry("new", Worth.GOAL, NOW)])
        await outbox.settle(delivered)
        await outbox.retry(tried, NOW)
        assert sorted(entry.text for entry in await outbox.take(5, NOW)) == ["1", "new"]
        assert outbox.counts() == Counts(5, delivered=1, in_flight=2, dropped={"store lost": 2})
        await outbox.close()

    with RedisServer() as server:
        asyncio.run(story(server))


@pytest.mark.parametrize(
    ("gone", "lost"),
    [
        (("DEL", "hits:1"), 2),
        (("XGROUP DESTROY", "hits:1", "senders"), 0),
        (("DEL", "again"), 0),
        (("DEL", "totals"), 0),
    ],
)
def test_a_part_of_the_data_that_is_gone_is_counted_and_what_remains_and_comes_leaves_once(
    server: RedisServer, prefix: str, gone: tuple[str, ...], lost: int
) -> None:
    async def story() -> None:
        ours, theirs = (RedisOutbox(server.url, prefix=prefix) for _ in range(2))
        await theirs.put([Entry("theirs", Worth.GOAL, NOW)])
        await ours.put([Entry(f"{number}", Worth.GOAL, NOW) for number in range(3)])
        taken = await ours.take(3, NOW)
        assert [entry.text for entry in taken] == ["theirs", "0", "1"]
        await ours.retry(taken[2], NOW)
        await ours.put([Entry("3", Worth.GOAL, NOW)])
        command, key, *group = gone
        server.say(*command.split(), f"{{{prefix}}}:{key}", *group)

        with suppress(OutboxError):  # where it has to hear of it first
            await ours.renew(NOW)
        await ours.put([Entry(f"{number}", Worth.GOAL, NOW) for number in range(4, 7)])
        sent = taken[:2]
        while found := await ours.take(2, NOW + 1):
            sent += found
        await ours.renew(NOW)
        for entry in sent:
            await ours.settle(entry)
        await ours.commit()
        texts = Counter(entry.text for entry in sent)
        assert set(texts.values()) == {1}
        assert texts.keys() >= {"theirs", "0", "4", "5", "6"}
        assert len(texts) == 8 - lost
        dropped = {"store lost": lost} if lost else {}
        assert ours.counts() == Counts(8, delivered=8 - lost, dropped=dropped)
        await ours.close()
        await theirs.close()

    asyncio.run(story())


def test_two_machines_never_hold_the_same_hit_and_their_accounts_balance(
    server: RedisServer, prefix: str
) -> None:
    async def story() -> None:
        machines = [RedisOutbox(server.url, prefix=prefix) for _ in range(3)]
        sent: Counter[str] = Counter()

        async def work(outbox: RedisOutbox, mine: int) -> None:
            for number in range(40):
                await outbox.put([Entry(f"{mine}-{number}", Worth(number % 3), NOW)])
                for entry in await outbox.take(3, NOW + 1):
                    if number % 7 == 0 and entry.attempts == 0:
                        entry.attempts += 1
                        await outbox.retry(entry, NOW)
                    else:
                        sent[entry.text] += 1
                        await outbox.settle(entry)

        await asyncio.gather(*[work(outbox, mine) for mine, outbox in enumerate(machines)])
        for outbox in machines:
            while left := await outbox.take(10, NOW + 1):
                for entry in left:
                    sent[entry.text] += 1
                    await outbox.settle(entry)
        for outbox in machines:
            await outbox.renew(NOW)
            assert balanced(outbox.counts())
        assert sum(outbox.counts().delivered for outbox in machines) == 120
        assert sum(outbox.counts().waiting for outbox in machines) == 0
        assert set(sent.values()) == {1}
        assert len(sent) == 120
        for outbox in machines:
            await outbox.close()

    asyncio.run(story())


def test_after_a_failover_hits_go_to_the_new_leader_although_the_old_one_lives_on(prefix: str) -> None:
    async def story(old: RedisServer, new: RedisServer) -> None:
        async with line(old) as way:
            outbox = RedisOutbox(way.url, prefix=prefix)
            await outbox.put([Entry("before", Worth.GOAL, NOW)])
            old.say("REPLICAOF", "127.0.0.1", str(new.port))
            way.leads_to = new.port
            with pytest.raises(OutboxError, match="ReadOnlyError"):
                await outbox.put([Entry("during", Worth.GOAL, NOW)])
            with suppress(OutboxError):  # the new leader never heard of the data
                await outbox.renew(NOW)
            await outbox.put([Entry("after", Worth.GOAL, NOW)])
            assert new.say("XLEN", f"{{{prefix}}}:hits:1") == ":1"
            await outbox.close()

    with RedisServer() as old, RedisServer() as new:
        asyncio.run(story(old, new))


@pytest.mark.parametrize("number", [0, 5, 1200], ids=["none", "few", "many"])
@pytest.mark.parametrize("told", ["-5", "0", "1000000000"])
def test_limits_are_counted_anew_at_the_start_in_hits_and_in_bytes(
    server: RedisServer, prefix: str, number: int, told: str
) -> None:
    totals = f"{{{prefix}}}:totals"

    def total(name: str) -> int:
        return int(server.answer("HGET", totals, name))

    async def story() -> None:
        outbox = RedisOutbox(server.url, prefix=prefix)
        await outbox.put([Entry("x" * 100, Worth(hit % 3), NOW) for hit in range(number + 30)])
        flying = await outbox.take(30, NOW)
        for entry in flying[:10]:
            await outbox.retry(entry, NOW + 60)
        await outbox.commit()
        server.say("HSET", totals, "hits", told, "bytes", told)

        following = RedisOutbox(
            server.url, prefix=prefix, max_hits=number + 11, max_bytes=100 * (number + 11)
        )
        await following.put([Entry("x" * 100, Worth.GOAL, NOW)])
        assert following.counts().dropped == {}
        assert (total("hits"), total("bytes")) == (number + 11, 100 * (number + 11))
        await following.put([Entry("x" * 100, Worth.REVENUE, NOW)])
        assert following.counts().dropped == {"overflow": 1}
        for each in (outbox, following):
            await each.close()

    asyncio.run(story())


def test_what_was_an_estimate_of_bytes_ends_with_the_last_hit(server: RedisServer, prefix: str) -> None:
    totals = f"{{{prefix}}}:totals"

    async def story() -> None:
        outbox = RedisOutbox(server.url, prefix=prefix)
        await outbox.put([Entry("x" * 100, Worth.GOAL, NOW)])
        server.say("HINCRBY", totals, "bytes", "7")
        for entry in await outbox.take(1, NOW):
            await outbox.settle(entry)
        await outbox.close()
        assert server.answer("HGET", totals, "bytes") == "0"

    asyncio.run(story())


def test_processes_that_left_leave_nothing_behind(server: RedisServer, prefix: str) -> None:
    async def story() -> None:
        for number in range(5):
            outbox = RedisOutbox(server.url, prefix=prefix)
            await outbox.put([Entry(f"{number}", Worth.GOAL, NOW)])
            for entry in await outbox.take(1, NOW):
                await outbox.settle(entry)
            await outbox.close()

    asyncio.run(story())
    for key in ("steps", "alive", "ceded"):
        assert server.say("EXISTS", f"{{{prefix}}}:{key}") == ":0"


def test_a_refusal_says_what_redis_calls_it_and_nothing_of_what_was_stored(prefix: str) -> None:
    async def story(url: str) -> OutboxError:
        outbox = RedisOutbox(url, prefix=prefix)
        with pytest.raises(OutboxError) as caught:
            await outbox.put([Entry("c=1&p=2&secret", Worth.GOAL, NOW)])
        await outbox.link.close()
        return caught.value

    with RedisServer(requirepass="a-password") as server:
        error = asyncio.run(story(server.url))
        assert str(error) == f"The outbox '{server.url}' failed to open: AuthenticationError."
        wrong = asyncio.run(story(server.url.replace("//", "//:another-password@")))
        assert "another-password" not in str(wrong)
        assert asyncio.run(works(server.url.replace("//", "//:a-password@"), prefix))


async def works(url: str, prefix: str) -> bool:
    outbox = RedisOutbox(url, prefix=prefix)
    await outbox.put([Entry("hit", Worth.GOAL, NOW)])
    await outbox.close()
    return outbox.counts().accepted == 1


def test_the_ledger_grants_every_claim_to_one_asker(server: RedisServer, prefix: str) -> None:
    wanted = Receipt("visitor", (11,), (331, 33), (("ab12345", ORDER),))

    async def story() -> None:
        links = [RedisLink(server.url, prefix) for _ in range(4)]
        ledgers = [RedisLedger(link) for link in links]
        answers = await asyncio.gather(*[ledger.claim([wanted, wanted]) for ledger in ledgers])
        granted = [receipt for answer in answers for receipt, _ in answer if receipt.claims()]
        assert granted == [wanted]
        for link in links:
            await link.close()

    asyncio.run(story())


def test_what_is_given_back_is_owed_once_with_the_order_as_it_was(server: RedisServer, prefix: str) -> None:
    lost = Receipt("visitor", (11,), (2**62, 33), (("ab12345", ORDER),))

    async def story() -> None:
        links = [RedisLink(server.url, prefix) for _ in range(2)]
        losing, serving = (RedisLedger(link) for link in links)
        await losing.claim([lost])
        await losing.give_back([lost])
        assert not serving.owes("visitor")
        await serving.look()
        assert serving.owes("visitor")
        assert not serving.owes("another")
        assert await serving.claim([Receipt("another", (), (1,))]) == [(Receipt("another", (), (1,)), None)]
        assert await serving.claim([Receipt("visitor", (), (5,))]) == [(Receipt("visitor", (), (5,)), lost)]
        assert await serving.claim([Receipt("visitor")]) == [(Receipt("visitor"), None)]
        await losing.look()
        assert not losing.owes("visitor")
        for link in links:
            await link.close()

    asyncio.run(story())


def test_what_is_owed_and_cannot_be_claimed_again_is_told_once_and_later(
    server: RedisServer, prefix: str
) -> None:
    lost = Receipt("visitor", (11,), (331,), (("ab12345", ORDER),))

    async def story() -> None:
        async with line(server) as way:
            links = [RedisLink(server.url, prefix), RedisLink(way.url, prefix)]
            losing, serving = (RedisLedger(link) for link in links)
            await losing.claim([lost])
            await losing.give_back([lost])
            await serving.look()
            asked: list[bytes] = []  # the second time it asks for what it found to be owed

            def cut(question: bytes) -> bool:
                asked.extend([question] if b"\r\nclaim\r\n" in question else [])
                return len(asked) > 1

            way.cut_after = cut
            told = [await serving.claim([Receipt("visitor", (), (5,))])]
            assert serving.lost == [lost]
            way.cut_after = lambda _question: False
            await serving.give_back(serving.lost)
            serving.lost.clear()
            told += [await serving.claim([Receipt("visitor", (), (goal,))]) for goal in (6, 7)]
            assert [owed for ((_, owed),) in told] == [None, lost, None]
            for link in links:
                await link.close()

    asyncio.run(story())


def test_a_claim_whose_answer_gets_lost_is_granted_to_who_asked(server: RedisServer, prefix: str) -> None:
    wanted = Receipt("visitor", (11,), (331,))

    async def story() -> None:
        async with line(server) as way:
            link = RedisLink(way.url, prefix)
            ledger = RedisLedger(link)
            way.cut_after = once("claim")
            assert await ledger.claim([wanted]) == [(wanted, None)]
            assert way.lost == 1
            assert await ledger.claim([wanted]) == [(Receipt("visitor"), None)]
            way.cut_after = lambda _question: True
            with pytest.raises(UnreachableError):
                await ledger.claim([wanted])
            await link.close()

    asyncio.run(story())


def test_what_is_owed_is_handed_out_although_the_answer_gets_lost(server: RedisServer, prefix: str) -> None:
    lost = Receipt("visitor", (11,), (331,))

    async def story() -> None:
        async with line(server) as way:
            link = RedisLink(way.url, prefix)
            ledger = RedisLedger(link)
            for _ in range(2):
                await ledger.claim([lost])
                await ledger.give_back([lost])
                way.cut_after = once("claim")
                assert await ledger.claim([Receipt("visitor", (), (5,))]) in (
                    [(Receipt("visitor", (), (5,)), lost)],
                    [(Receipt("visitor"), lost)],
                )
                assert await ledger.claim([Receipt("visitor")]) == [(Receipt("visitor"), None)]
            assert way.lost == 2
            await link.close()

    asyncio.run(story())


@pytest.mark.parametrize("password", ["Top/Secret", "Top#Secret", "Top?Secret", "Top%Secret/", "[TopSecret"])
def test_a_url_that_is_refused_repeats_no_part_of_its_password(password: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Tracker(
            Settings(
                project_id=1,
                customer_id=2,
                secret_key="a secret of at least 16 bytes",
                outbox=f"redis://user:{password}@redis.internal:6379/0",
            )
        )
    told = "".join(format_exception(caught.value))
    assert "Secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "as 'Top" not in told
    assert "'[Top" not in told
