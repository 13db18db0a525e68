"""The scheduler on slots that only count: order, fairness, and no slot that leaks."""

import random
import threading
from types import SimpleNamespace

import jax
import pytest

from llm.serve.scheduler import Job, Refused, Scheduler


class Slots:
    """Each step is a token for every slot; a task is how many tokens it makes."""

    def __init__(self, count, fails_at=-1):
        self.count, self.tasks, self.made = count, {}, {}
        self.steps, self.fails_at, self.started = 0, fails_at, []

    def free(self):
        return [n for n in range(self.count) if n not in self.tasks]

    def start(self, slot, task):
        assert slot not in self.tasks, "a slot in use"
        self.tasks[slot], self.made[slot] = task, 0
        self.started.append(task.name)

    def stop(self, slot):
        self.tasks.pop(slot, None)

    def step(self):
        self.steps += 1
        if self.steps == self.fails_at:
            raise jax.errors.JaxRuntimeError("out of memory")
        for slot in self.tasks:
            self.made[slot] += 1
        return {slot: SimpleNamespace(tokens=[7]) for slot in self.tasks}

    def done(self, slot):
        return "length" if self.made[slot] >= self.tasks[slot].max_tokens else ""

    def score(self, ids):
        return list(ids)

    def reset(self):
        self.tasks, self.made = {}, {}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def job(client, name, tokens=3, prompt=2, ends=None, **more):
    ends = {} if ends is None else ends
    assert name not in ends

    def finish(reason):
        assert name not in ends, "finished twice"
        ends[name] = reason

    task = SimpleNamespace(ids=[1] * prompt, max_tokens=tokens, name=name, matcher=None)
    more.setdefault("take", lambda piece, last: "")
    return Job(client, task, finish=finish, **more)


def finish_all(scheduler, most=1000):
    for _ in range(most):
        if not (scheduler.running or scheduler.waiting):
            return
        scheduler.tick()
    raise AssertionError("it does not end")


def test_a_client_with_many_requests_does_not_keep_another_waiting():
    slots = Slots(2)
    scheduler, ends = Scheduler(slots, most_of_client=99), {}
    for n in range(20):
        scheduler.submit(job("many", f"many {n}", ends=ends))
    scheduler.tick()
    scheduler.submit(job("one", "one", ends=ends))
    finish_all(scheduler)
    # Two were in slots; of the next two that get one, it is the first.
    assert slots.started.index("one") == 2
    assert slots.started[3:] == [f"many {n}" for n in range(2, 20)]
    assert set(ends.values()) == {"length"} and len(ends) == 21


def test_clients_get_equal_tokens_not_equal_requests():
    slots, ends = Slots(1), {}
    scheduler = Scheduler(slots, most_of_client=99)
    for n in range(30):
        scheduler.submit(job("long", f"long {n}", tokens=40, prompt=10, ends=ends))
    for n in range(60):
        scheduler.submit(job("short", f"short {n}", tokens=8, prompt=2, ends=ends))
    finish_all(scheduler, 5000)
    first = slots.started[:36]
    given = [sum(n.startswith(k) for n in first) for k in ("long", "short")]
    assert given == [6, 30]  # 50 tokens each against 10


def test_who_comes_back_has_nothing_saved_up():
    slots = Slots(1)
    scheduler, ends = Scheduler(slots, most_of_client=99), {}
    scheduler.submit(job("idle", "before", ends=ends))
    for n in range(10):
        scheduler.submit(job("steady", f"steady {n}", tokens=10, ends=ends))
    for _ in range(60):
        scheduler.tick()
    for n in range(10):
        scheduler.submit(job("idle", f"idle {n}", tokens=10, ends=ends))
    before = len(slots.started)
    finish_all(scheduler)
    after = slots.started[before : before + 8]
    assert sum(name.startswith("idle") for name in after) <= 5


def test_cancelled_ones_leave_at_once():
    slots, ends = Slots(1), {}
    scheduler = Scheduler(slots)
    jobs = [job("a", n, tokens=50, ends=ends) for n in range(3)]
    scheduler.submit(*jobs)
    scheduler.tick()
    scheduler.cancel(jobs[0], jobs[2])
    scheduler.tick()
    assert ends == {0: "cancelled", 2: "cancelled"}
    assert slots.started == [0, 1] and scheduler.waiting == 0
    scheduler.cancel(*jobs)
    finish_all(scheduler)
    assert ends[1] == "cancelled" and not slots.tasks


def test_deadlines():
    slots, ends, clock = Slots(1), {}, Clock()
    scheduler = Scheduler(slots, clock=clock)
    scheduler.submit(job("a", "served", tokens=9, ends=ends, deadline=5.0))
    scheduler.submit(job("a", "waits", ends=ends, deadline=3.0))
    scheduler.tick()
    clock.now = 4.0
    scheduler.tick()
    assert ends == {"waits": "timeout"}
    clock.now = 6.0
    scheduler.tick()
    assert ends["served"] == "timeout" and not slots.tasks


def test_too_many_wait():
    slots = Slots(1)
    scheduler = Scheduler(slots, most_waiting=3, most_of_client=2)
    scheduler.submit(job("a", 0))  # has a slot
    scheduler.tick()
    scheduler.submit(job("a", 1), job("a", 2))
    for client, names, status in (("a", [3], 429), ("b", [4, 5], 429)):
        with pytest.raises(Refused) as caught:
            scheduler.submit(*(job(client, n) for n in names))
        assert caught.value.status == status
    scheduler.submit(job("b", 6))
    with pytest.raises(Refused):
        scheduler.submit(job("c", 7))
    assert scheduler.waiting == 3
    scheduler.drain()
    with pytest.raises(Refused) as caught:
        scheduler.submit(job("c", 8))
    assert caught.value.status == 503
    finish_all(scheduler)  # what is in is served
    assert slots.started == [0, 1, 6, 2] or slots.started == [0, 6, 1, 2]


def test_a_failing_engine_fails_those_in_slots_alone():
    slots, ends = Slots(2, fails_at=2), {}
    scheduler = Scheduler(slots)
    for n in range(3):
        scheduler.submit(job("a", n, ends=ends))
    finish_all(scheduler)
    assert ends == {0: "failed", 1: "failed", 2: "length"} and not slots.tasks


def test_what_take_says_ends_it():
    slots, ends, seen = Slots(2), {}, []

    def take(piece, last):
        seen.append(last)
        return "content_filter" if len(seen) == 2 else ""

    scheduler = Scheduler(slots)
    scheduler.submit(job("a", 0, tokens=5, ends=ends, take=take))
    finish_all(scheduler)
    assert ends == {0: "content_filter"} and seen == [False, False]


def test_a_prompt_alone_is_scored_and_takes_no_slot():
    slots, ends, scores = Slots(1), {}, []
    scheduler = Scheduler(slots)
    scheduler.submit(job("a", 0, tokens=0, ends=ends, score=True, scored=scores.append))
    finish_all(scheduler)
    assert scores == [[1, 1]] and ends == {0: "length"} and not slots.started


def test_nothing_leaks_from_a_crowd():
    """Many threads submit and cancel; all end once, and all slots are free."""
    slots, ends, rng = Slots(4), {}, random.Random(0)
    scheduler = Scheduler(slots, most_waiting=10_000, most_of_client=10_000)
    thread = threading.Thread(target=scheduler.run)
    thread.start()

    def client(name, seeds):
        own = random.Random(seeds)
        for n in range(50):
            jobs = [
                job(name, (name, n, k), own.randrange(1, 9), ends=ends)
                for k in range(own.randrange(1, 3))
            ]
            scheduler.submit(*jobs)
            if own.random() < 0.4:
                scheduler.cancel(*jobs)

    threads = [
        threading.Thread(target=client, args=(f"c{n}", rng.random())) for n in range(8)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert scheduler.wait_idle(10)
    scheduler.close()
    thread.join()
    assert not slots.tasks and not scheduler.failed
    assert len(ends) >= 400 and set(ends.values()) <= {"length", "cancelled"}


def test_closing_ends_all():
    slots, ends = Slots(1), {}
    scheduler = Scheduler(slots)
    for n in range(3):
        scheduler.submit(job("a", n, tokens=10**9, ends=ends))
    thread = threading.Thread(target=scheduler.run)
    thread.start()
    scheduler.close()
    thread.join()
    assert set(ends.values()) == {"closed"} and len(ends) == 3
