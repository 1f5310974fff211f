from __future__ import annotations

import time
from dataclasses import replace

import pytest
from redis import Redis

from pytest_celery_health import AskQueues, Queue, QueueDepth, Snapshot, Unseen, Worker, Workers, judge
from pytest_celery_health.facts import merge
from pytest_celery_health.observe import queues
from tests.observe.scene import INFO, NOBODY, Scene
from tests.support.timing import wait_until

#: Of a system that shares the database.
OTHER = {"global_keyprefix": "shop1:"}


@pytest.fixture
def scenes(redis_url):
    """Makes scenes on a database of the test's own."""
    made = []

    def make(url=redis_url, **conf):
        made.append(Scene(url, **conf))
        return made[-1]

    yield make
    for scene in made:
        scene.close()


def keys(scene):
    return set(Redis.from_url(scene.url).keys())


@pytest.mark.parametrize("priority", [0, 4, 7, 9])
def test_every_priority_counts(scenes, priority):
    """kombu keeps a list for each priority step; LLEN of the queue's name alone sees one of them."""
    scene = scenes()
    scene.send("celery", 2, priority=priority)
    scene.send("celery", priority=0)
    assert scene.queue("celery") == Queue("celery", ready=3, exists=True)


def test_all_priorities_together(scenes):
    """1,204 messages over ten priorities are 1,204 messages."""
    scene = scenes()
    for priority in range(10):
        scene.send("celery", 120 + 4 * (priority == 3), priority=priority)
    assert scene.queue("celery").ready == 1204


@pytest.mark.parametrize(
    "options",
    [
        {"global_keyprefix": "shop:"},
        {"sep": ":"},
        {"priority_steps": list(range(10)), "sep": "#"},
        {"priority_steps": [1, 5]},
        {"global_keyprefix": "{shop}.", "priority_steps": [0, 5], "sep": "::"},
    ],
)
def test_transport_options(scenes, options):
    """Prefix, separator and priority steps are the app's own, and each key is the one that kombu uses."""
    scene = scenes(broker_transport_options=options)
    for priority in (0, 2, 5, 9):
        scene.send("celery", priority=priority)
    assert scene.queue("celery").ready == 4
    with scene.context() as context:
        reader = queues.reader_for(context)
        channel = context.connection.default_channel
        own = {reader.prefix + channel._q_for_pri("celery", step) for step in channel.priority_steps}
        assert set(reader.keys("celery")) == own


def test_database_of_the_url(scenes, redis_server):
    """A queue of one database is not one of another."""
    scene, other = scenes(), scenes(redis_server.fresh())
    scene.send("celery")
    assert (scene.queue("celery").ready, other.queue("celery").ready) == (1, 0)


def test_empty_is_not_missing(scenes):
    """An empty queue has no key, yet it exists if a worker, the app or a binding says so."""
    scene = scenes()
    consumed = Workers((Worker("w1", queues=("consumed",)),))
    scene.declare("bound")
    found = scene.read("celery", "consumed", "bound", "typo", workers=consumed)
    assert {queue.name: queue.exists for queue in found.seen} == {
        "celery": True,
        "consumed": True,
        "bound": True,
        "typo": False,
    }
    assert [queue.ready for queue in found.seen] == [0, 0, 0, 0]
    assert found.known == {"celery", "consumed", "bound"}


def test_binding_under_a_key_prefix(scenes):
    """A worker that has gone left its binding, also under a prefix."""
    scene = scenes(broker_transport_options={"global_keyprefix": "shop:"})
    scene.declare("bound")
    assert scene.queue("bound").exists is True
    assert scene.queue("typo").exists is False


def test_missing_is_not_known_without_the_app(scenes):
    """Without the app, a queue that is empty and unbound may be one with an exchange of its own."""
    assert scenes().queue("typo", app=None).exists == Unseen(
        "it is empty or does not exist: Redis keeps no key of an empty queue, and neither a worker"
        " nor a binding names it"
    )


def test_patterns_match_what_is_known(scenes):
    """A pattern finds queues of workers and of the app."""
    scene = scenes()
    scene.send("billing.eu")
    workers = Workers((Worker("w1", queues=("billing.eu",)),))
    found = scene.read("billing*", "celery", workers=workers, app=replace(INFO, queues=("billing", "mail")))
    assert [(queue.name, queue.ready) for queue in found.seen] == [
        ("billing", 0),
        ("billing.eu", 1),
        ("celery", 0),
    ]
    assert found.known == {"billing", "billing.eu", "celery", "mail"}


@pytest.mark.parametrize(
    "options",
    [{}, {"global_keyprefix": "sh*p[1]:"}, {"sep": "#"}],
    ids=["plain", "prefix", "separator"],
)
def test_pattern_finds_a_queue_that_only_the_broker_knows(scenes, options):
    """Nobody consumes it and the app does not know it, but its binding is there, and so are its messages."""
    scene, other = scenes(broker_transport_options=options), scenes(broker_transport_options=OTHER)
    scene.declare("pay.orphan")
    scene.send("pay.orphan", 1201)
    other.declare("pay.elsewhere")
    before = keys(scene)
    found = scene.read("pay*")
    assert found.seen == (Queue("pay.orphan", ready=1201, exists=True),)
    assert found.known == {"celery", "pay.orphan"}
    assert judge(QueueDepth("pay*", ready_below=1000), Snapshot(found, NOBODY)).message() == (
        "pay.orphan holds 1,201 ready messages; wanted below 1,000 (no worker consumes it) (and 1 more)"
    )
    assert keys(scene) == before
    assert scene.read("celery").known == {"celery"}


def test_pattern_does_not_mean_what_another_row_names(scenes):
    """A misspelt name, and a queue that only a name leads to, are the matter of the row that names them."""
    scene = scenes()
    Redis.from_url(scene.url).lpush("pay.eu", "{}")
    wanted = QueueDepth("pay*"), QueueDepth("pay.typo"), QueueDepth("pay.eu", ready_below=1)
    alone = judge(wanted[0], scene.look(*wanted[0].asks()))
    seen = scene.look(*merge(ask for check in wanted for ask in check.asks()))
    assert judge(wanted[0], seen) == alone
    assert alone.message().startswith("cannot tell: no queue matches pay*")
    assert judge(wanted[1], seen).message().startswith("pay.typo does not exist")
    assert judge(wanted[2], seen).message().startswith("pay.eu holds 1 ready message")


def test_pattern_leaves_out_what_remote_control_leaves_behind(scenes):
    """Reply queues, mailboxes and receivers of events are bound as well, and hold no tasks."""
    scene = scenes(event_exchange="shop.events")
    with scene.app.connection() as connection:
        channel = connection.default_channel
        mailbox = scene.app.control.mailbox(connection)
        mailbox.get_reply_queue()(channel).declare()
        mailbox.get_queue("w1@x")(channel).declare()
        for prefix in ("celeryev", "shop.events"):
            scene.app.events.Receiver(connection, queue_prefix=prefix).queue(channel).declare()
        assert len(keys(scene)) > 2
        found = scene.read("*")
        assert [queue.name for queue in found.seen] == ["celery"]


def test_pattern_is_unknown_where_bindings_cannot_be_read(scenes):
    """Whether a pattern found all is not known, which does not keep what was found from being judged."""
    scene = scenes()
    Redis.from_url(scene.url).set("_kombu.binding.pay", "no set")
    found = scene.read("cel*")
    assert found.seen == (Queue("celery", ready=0, exists=True),)
    assert (
        judge(QueueDepth("cel*"), Snapshot(found, NOBODY))
        .message()
        .startswith("cannot tell: cel*: Redis refused SMEMBERS on it: WRONGTYPE")
    )
    with scene.context() as context:
        late = replace(context, deadline=type(context.deadline)(0))
        found = queues.read(late, [AskQueues(("pay*",))])
    assert found.unlisted == Unseen("there was no time to list the broker's queues, so others may match")


def test_key_of_another_kind_is_that_queues_matter(scenes):
    """A key that is no list, or that may not be read, makes one queue unseen and leaves the others alone."""
    scene = scenes()
    scene.send("good")
    Redis.from_url(scene.url).set("bad", "text")
    bad, good = scene.read("bad", "good").seen
    assert isinstance(bad.ready, Unseen)
    assert bad.ready.why.startswith("Redis refused LLEN on it: WRONGTYPE Operation against a key")
    assert good.ready == 1


def test_looking_changes_no_key(scenes):
    """Reading depth, existence and progress leaves the database as it was."""
    scene = scenes()
    scene.send("celery", 3)
    before = keys(scene)
    scene.read("celery", "typo", "other", unacked=True, progress_over=0.05)
    assert keys(scene) == before
    assert Redis.from_url(scene.url).llen("celery") == 3


@pytest.mark.parametrize("count", [50, 51, 1000])
def test_many_queues(scenes, count):
    """Queues of all priorities are counted one for one, however many they are."""
    scene = scenes()
    names = [f"q{number}" for number in range(count)]
    with Redis.from_url(scene.url) as client, client.pipeline(transaction=False) as pipe:
        for number, name in enumerate(names):
            for step in (0, 3, 6, 9)[: number % 5]:
                pipe.lpush(f"{name}\x06\x16{step}" if step else name, *range(step + 1))
        pipe.set(f"{names[-1]}\x06\x169", "no list")
        pipe.execute()
    found = scene.read(*names).seen
    expected = [sum(step + 1 for step in (0, 3, 6, 9)[: number % 5]) for number in range(count)]
    assert [queue.ready for queue in found[:-1]] == expected[:-1]
    assert isinstance(found[-1].ready, Unseen)


def test_a_thousand_queues_at_once(scenes):
    """A thousand depths take a small part of the processor time of a passive declare each."""
    scene = scenes()
    names = [f"q{number}" for number in range(1000)]
    with Redis.from_url(scene.url) as client, client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.lpush(name, 1)
        pipe.execute()
    with scene.context() as context:
        start = time.thread_time()
        queues.read(context, [AskQueues(tuple(names))])
        together = time.thread_time() - start
        start = time.thread_time()
        for name in names[:100]:
            context.connection.default_channel.queue_declare(name, passive=True)
        each = (time.thread_time() - start) / 100
    assert together < 1000 * each / 8


def test_chunks_keep_their_order(scenes, monkeypatch):
    """More commands than one burst takes are told apart all the same."""
    monkeypatch.setattr(queues.redis, "AT_ONCE", 7)
    scene = scenes()
    for number in range(1, 6):
        scene.send(f"q{number}", number)
    found = scene.read(*(f"q{number}" for number in range(1, 6)), unacked=True)
    assert [queue.ready for queue in found.seen] == [1, 2, 3, 4, 5]
    assert found.unacked.count == 0


def test_no_more_messages_are_read_than_are_sane(scenes, monkeypatch):
    """Whether a backlog of huge messages moves is then told by its depth and by its workers."""
    monkeypatch.setattr(queues.redis, "MESSAGES", 100_000)
    monkeypatch.setattr(queues.redis, "OLDEST_AT_ONCE", 2)
    scene = scenes()
    names = [f"q{number}" for number in range(6)]
    for name in names:
        scene.send(name, args=("x" * 60_000,))
    with scene.context() as context:
        reader = queues.reader_for(context)
        assert sorted(reader.oldest(names)) == ["q0", "q1"]
        assert reader.oldest(names) == {}
    check = QueueDepth(queues=names, moves_within=0.2, consumers_at_least=0)
    found = judge(check, scene.look(*check.asks()))
    assert len(found.bad) == len(names)
    assert found.message().startswith("q0 stood still for 0.")


@pytest.mark.slow
def test_nothing_is_read_after_the_deadline(scenes):
    """A look whose time is up says so instead of waiting."""
    scene = scenes()
    with scene.context() as context:
        late = replace(context, deadline=type(context.deadline)(0))
        found = queues.read(late, [AskQueues(("celery",))])
    assert found.seen[0].ready == Unseen("the deadline passed before it was looked at")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"visibility_timeout": 45},
        {"unacked_key": "held", "unacked_index_key": "held_index", "global_keyprefix": "shop:"},
    ],
)
def test_unacked_of_a_real_worker(scenes, start_worker, options):
    """What a worker took and did not acknowledge is in no queue; its age is that of the oldest delivery."""
    scene = scenes(broker_transport_options=options, task_acks_late=True)
    worker = start_worker(scene.url, "w1@x", "-P", "prefork", "-c", "1", **scene.conf)
    scene.send("celery", 3, args=(1,))

    def seen(condition):
        found = scene.read("celery", unacked=True)
        return condition(found.unacked) and found

    first = wait_until(lambda: seen(lambda unacked: unacked.count == 3))
    assert first.seen[0].ready == 0
    assert 0 <= first.unacked.oldest < 15
    assert first.unacked.visibility_timeout == options.get("visibility_timeout", 3600)
    worker.freeze()
    wait_until(lambda: seen(lambda unacked: unacked.oldest > first.unacked.oldest + 0.2))
    worker.thaw()
    wait_until(lambda: seen(lambda unacked: (unacked.count, unacked.oldest) == (0, None)))


def test_depth_is_not_backlog(scenes, start_worker):
    """Tasks with an ETA leave the queue for the worker at once: ready is 0, and they are unacknowledged."""
    scene = scenes()
    start_worker(scene.url, "w1@x", "-P", "prefork", "-c", "1")
    scene.send("celery", 50, countdown=3600)
    found = wait_until(lambda: (found := scene.read("celery", unacked=True)).unacked.count == 50 and found)
    assert found.seen[0].ready == 0


def test_no_unacked_without_ack_emulation(scenes):
    """With ack_emulation off, Redis can never show what workers hold."""
    scene = scenes(broker_transport_options={"ack_emulation": False})
    assert scene.read(unacked=True).unacked == Unseen(
        "ack_emulation is off, so Redis keeps nothing of what workers hold", never=True
    )
