"""A seeded audit trail of ten event types, five of them wide: fields that come and go, and that nobody can predict.

Planted, one in so many records: logins of root, new regions, new groups, privileged containers, and addresses with an
agent that others use, but never from there.
"""

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final, NamedTuple

from worker.features.kinds import KINDS
from worker.features.schema import Schema
from worker.formats.base import Row

EVENTS: Final[Mapping[str, tuple[str, int, int]]] = {
    "ConsoleLogin": ("signin", 16, 0),
    "GetObject": ("s3", 28, 0),
    "PutObject": ("s3", 14, 0),
    "AssumeRole": ("sts", 14, 0),
    "RunInstances": ("ec2", 5, 110),
    "CreatePod": ("k8s", 7, 90),
    "AddUserToGroup": ("iam", 3, 0),
    "UpdateFunction": ("lambda", 4, 100),
    "CreateTrail": ("trail", 2, 90),
    "DescribeAll": ("ec2", 7, 80),
}
"""Source, frequency in percent, and number of fields of its own that nobody can predict."""
PLANTED: Final = ("root login", "new region", "new group", "privileged container", "new pair")
USERS: Final = [f"user{n}" for n in range(12)]
AGENTS: Final = ["cli/2.1", "console", "sdk-go/1.4", "sdk-py/3.9", "terraform/1.5"]
ALWAYS, OFTEN = 15, 60  # of a wide event's own fields: in all of its records, in half of them; the rest in one of 20


class Trail(NamedTuple):
    """Records, and what was planted in each: one of PLANTED, or nothing."""

    rows: list[Row]
    kinds: list[str]


def trail(count: int, seed: int, share: float = 0.0, width: float = 1.0) -> Trail:
    """So many records, a share of them planted. width: how wide the wide events are, 1 for about 480 fields in all."""
    draw, company = Random(seed), Random(99)
    networks = {user: [f"10.{company.randrange(6)}.0.0/16" for _ in range(1 + company.randrange(2))] for user in USERS}
    agents = {user: company.sample(AGENTS, 1 + company.randrange(2)) for user in USERS}
    known = {(network, agent) for user in USERS for network in networks[user] for agent in agents[user]}
    new = [pair for pair in ((n, a) for n in sorted({n for n, _ in known}) for a in AGENTS) if pair not in known]
    rows, kinds = [], []
    for _ in range(count):
        kind = draw.choice(PLANTED) if draw.random() < share else ""
        usual = draw.choices([*EVENTS], [percent for _, percent, _ in EVENTS.values()])[0]
        of_kind = {PLANTED[0]: "ConsoleLogin", PLANTED[2]: "AddUserToGroup", PLANTED[3]: "CreatePod"}
        event, user = of_kind.get(kind, usual), draw.choice(USERS)
        network, agent = draw.choice(networks[user]), draw.choice(agents[user])
        row: Row = {
            "event": event,
            "source": EVENTS[event][0],
            "user": user,
            "network": network,
            "agent": agent,
            "region": draw.choices(["eu-west-1", "eu-central-1", "us-east-1"], [6, 3, 1])[0],
            "user_type": "role" if event in ("GetObject", "PutObject") and draw.random() < 0.7 else "user",
            "read_only": event in ("GetObject", "DescribeAll"),
            **({"error": "denied"} if draw.random() < 0.03 else {}),
            **{f"{event}.{name}": value for name, value in _request(event, draw, width).items()},
        }
        planted: dict[str, Row] = {
            PLANTED[0]: {"user": "root", "user_type": "root"},
            PLANTED[1]: {"region": draw.choice(["ap-southeast-2", "sa-east-1"])},
            PLANTED[2]: {"AddUserToGroup.group": "admins"},
            PLANTED[3]: {"CreatePod.privileged": True},
            PLANTED[4]: dict(zip(("network", "agent"), draw.choice(new), strict=True)),
        }
        rows.append({**row, **planted.get(kind, {})})
        kinds.append(kind)
    return Trail(rows, kinds)


def _request(event: str, draw: Random, width: float) -> Row:
    own: Row = {}
    if event == "ConsoleLogin":
        own = {"mfa": draw.random() < 0.97, "to": "home"}
    elif event in ("GetObject", "PutObject"):
        own = {"bucket": f"b{draw.randrange(15)}", "bytes": int(math.exp(draw.gauss(8, 1)))}
        own |= {"version": f"v{draw.randrange(9)}"} if draw.random() < 0.2 else {}
    elif event == "AssumeRole":
        own = {"role": f"r{draw.randrange(6)}", "seconds": draw.choice([900, 3600])}
    elif event == "AddUserToGroup":
        own = {"group": draw.choice(["devs", "ops", "qa"]), "member": draw.choice(USERS)}
    elif event == "CreatePod":
        own = {"privileged": False, "image": f"img{draw.randrange(8)}"}
    for number in range(round(EVENTS[event][2] * width)):
        if draw.random() < (1 if number < ALWAYS * width else 0.5 if number < OFTEN * width else 0.05):
            values = draw.choice("xyz"), round(draw.gauss(50, 20), 2), f"n{draw.randrange(12)}"
            own[f"f{number:03d}"] = values[number % len(values)]
    return own


def schema_of(rows: Sequence[Row]) -> Schema:
    """Every field of these records by the type of its values: a boolean, a category or a number."""
    kinds: dict[str, str] = {}
    of_type: dict[type[Any], str] = {bool: "boolean", str: "categorical", int: "numeric", float: "numeric"}
    for row in rows:
        for name, value in row.items():
            kinds.setdefault(name, of_type[type(value)])
    return Schema(tuple(KINDS[kind](name) for name, kind in kinds.items()))
