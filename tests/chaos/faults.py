"""The faults: each does one thing to a crowd, restores what it stopped, and says what it did."""

import signal
import time
from collections.abc import Callable, Mapping
from random import Random

from devtools.brokers import frozen
from tests.chaos.crowd import SESSION, Crowd, Member, wait_until
from tests.chaos.witness import Witness
from worker.broker.consumer import GroupConsumer
from worker.errors import WorkerError

Fault = Callable[[Crowd, Witness, Random], str]
SESSION_S = SESSION["session_timeout_ms"] / 1000
END_S = 40.0
MAX_PARTITIONS = 12


class Misbehaved(AssertionError):
    """A process did not do what a fault has to lead to."""


def kill(crowd: Crowd, witness: Witness, rng: Random) -> str:
    """kill -9, and a new process."""
    member = _anyone(crowd, rng)
    member.process.kill()
    time.sleep(pause := rng.choice((0.0, rng.uniform(0, 2))))
    member.process = crowd.launch(member.instance_id)
    return f"kill -9 {member.name}, started again after {pause:.1f} s"


def kill_all(crowd: Crowd, witness: Witness, rng: Random) -> str:
    """kill -9 of the whole group, and new processes."""
    for member in crowd.members:
        member.process.kill()
    for member in crowd.members:
        member.process = crowd.launch(member.instance_id)
    return "kill -9 of all workers, started again"


def terminate(crowd: Crowd, witness: Witness, rng: Random) -> str:
    """SIGTERM: it has to drain and exit 0; and a new process."""
    member = _anyone(crowd, rng)
    member.process.process.send_signal(signal.SIGTERM)
    _require_end(member, 0, "after SIGTERM")
    member.process = crowd.launch(member.instance_id)
    return f"SIGTERM {member.name}, started again"


def freeze_shortly(crowd: Crowd, witness: Witness, rng: Random) -> str:
    """A pause that the group doesn't notice."""
    member, seconds = _anyone(crowd, rng), rng.uniform(0.5, SESSION_S - 2.5)
    with frozen(member.process.process.pid):
        time.sleep(seconds)
    return f"SIGSTOP {member.name} for {seconds:.1f} s"


def freeze_beyond_the_session(crowd: Crowd, witness: Witness, rng: Random) -> str:
    """The member is thrown out, and wakes up with records that others have handled since."""
    member, seconds = _anyone(crowd, rng), SESSION_S + rng.uniform(0.5, 2.5)
    with frozen(member.process.process.pid):
        time.sleep(seconds)
    return f"SIGSTOP {member.name} for {seconds:.1f} s, longer than its session"


def replace_the_frozen(crowd: Crowd, witness: Witness, rng: Random) -> str:
    """A supervisor starts a static member anew while the old process is only frozen: the old one has to give up."""
    member = rng.choice([member for member in crowd.members if member.instance_id])
    old = Member(member.name, member.instance_id, member.process)
    with frozen(old.process.process.pid):
        member.process = crowd.launch(member.instance_id)
        member.process.wait_for("started")
        wait_until(lambda: member.process.said("rebalanced"), 5.0)  # it may have no partition to say it of
    _require_end(old, 1, "after another took its name")
    return f"SIGSTOP {member.name}, another with its name started, SIGCONT"


def kill_the_broker(crowd: Crowd, witness: Witness, rng: Random) -> str:
    """kill -9 of the broker, and a start with its data."""
    crowd.broker.kill()
    killed = time.monotonic()
    time.sleep(rng.choice((0.0, rng.uniform(0, 2))))
    crowd.broker.restart()
    return f"kill -9 of the broker, back after {time.monotonic() - killed:.1f} s"


def kill_the_broker_and_all(crowd: Crowd, witness: Witness, rng: Random) -> str:
    """Everything comes back at the same time: workers ask a broker that has not loaded all that it knows."""
    crowd.broker.kill()
    for member in crowd.members:
        member.process.kill()
        member.process = crowd.launch(member.instance_id)
    time.sleep(pause := rng.uniform(0, 3))  # by then they are trying to connect
    crowd.broker.restart()
    return f"kill -9 of the broker and all workers, all back after {pause:.1f} s"


def keep_the_broker_away(crowd: Crowd, witness: Witness, rng: Random) -> str:
    """Away for longer than a transaction may take: whether the last one was committed is not known for a while."""
    crowd.broker.kill()
    time.sleep(seconds := rng.uniform(10.0, 13.0))
    crowd.broker.restart()
    return f"kill -9 of the broker, away for {seconds:.1f} s"


def freeze_the_broker(crowd: Crowd, witness: Witness, rng: Random) -> str:
    """A broker that doesn't answer for a while."""
    seconds = rng.uniform(0.5, 4.0)
    with frozen(crowd.broker.pid):
        time.sleep(seconds)
    return f"SIGSTOP of the broker for {seconds:.1f} s"


def storm(crowd: Crowd, witness: Witness, rng: Random) -> str:
    """Members that join, hold partitions for a moment, and leave."""
    times = rng.randint(2, 4)
    for _ in range(times):
        try:
            guest = GroupConsumer(crowd.connection, [crowd.site.input_topic], crowd.site.group)
        except WorkerError:
            continue
        deadline = time.monotonic() + rng.uniform(0.3, 1.2)
        while time.monotonic() < deadline:
            guest.poll(100, 10)
        guest.close(2.0)
    return f"rebalance storm: {times} members came and left"


def slow_reader(crowd: Crowd, witness: Witness, rng: Random) -> str:
    """The reader of the results pauses while a worker is killed."""
    member = _anyone(crowd, rng)
    member.process.kill()
    member.process = crowd.launch(member.instance_id)
    witness.pause(seconds := rng.uniform(1.0, 3.0))
    return f"kill -9 {member.name}, the reader paused for {seconds:.1f} s"


def move_the_broker(crowd: Crowd, witness: Witness, rng: Random) -> str:
    """All brokers that a client knows are gone; one is at another address of its list."""
    here = crowd.broker.bootstrap_servers
    there = next(address for address in crowd.addresses if address != here)
    crowd.broker.move(int(there.rpartition(":")[2]))
    return f"broker moved from {here} to {there}"


def poison(crowd: Crowd, witness: Witness, rng: Random) -> str:
    """Header names that are no text, and large records, while a worker is killed."""
    crowd.traffic.poison(count := rng.randint(10, 60))
    member = _anyone(crowd, rng)
    member.process.kill()
    member.process = crowd.launch(member.instance_id)
    return f"{count} records with poisoned headers, every third of 0.9 MB; kill -9 {member.name}"


def add_partitions(crowd: Crowd, witness: Witness, rng: Random) -> str:
    """The input topic grows under the group: what reaches the new partitions before it knows of them is scored, too."""
    before = crowd.topics[crowd.site.input_topic]
    if before >= MAX_PARTITIONS:
        return f"no partition added, there are {before}"
    crowd.add_partitions(before + rng.randint(1, 2))
    now = crowd.topics[crowd.site.input_topic]
    witness.watch_also(crowd.site.input_topic, now)
    return f"{before} partitions become {now}"


FAULTS: Mapping[Fault, int] = {
    kill: 4,
    kill_all: 1,
    terminate: 3,
    freeze_shortly: 2,
    freeze_beyond_the_session: 2,
    replace_the_frozen: 2,
    kill_the_broker: 2,
    kill_the_broker_and_all: 1,
    keep_the_broker_away: 1,
    freeze_the_broker: 2,
    storm: 3,
    slow_reader: 1,
    move_the_broker: 2,
    poison: 2,
    add_partitions: 2,
}
"""How often each is drawn, relative to the others."""


def draw(rng: Random) -> Fault:
    """One of them."""
    return rng.choices(list(FAULTS), list(FAULTS.values()))[0]


def _anyone(crowd: Crowd, rng: Random) -> Member:
    time.sleep(rng.uniform(0, 0.5))  # anywhere between two batches
    return rng.choice(crowd.members)


def _require_end(member: Member, code: int, when: str) -> None:
    process, log = member.process.process, member.process.log
    if not wait_until(lambda: process.poll() is not None, END_S):
        raise Misbehaved(f"{member.name} still runs {END_S:g} s {when}; its log is {log}")
    if process.returncode != code:
        raise Misbehaved(f"{member.name} ended with {process.returncode} instead of {code} {when}; its log is {log}")
