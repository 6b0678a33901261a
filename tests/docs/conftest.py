"""What the blocks of the pages find when they run: recorded traffic, a schema, a model store, a broker with topics."""

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import orjson
import pytest

from devtools.brokers import JOIN_FAST, Broker, produce_values
from tests.docs.common import ROOT, Block
from tests.docs.preloaded import write_client
from worker.broker.admin import ensure_topics
from worker.broker.client import Connection
from worker.demo.anomalies import Planter
from worker.demo.processes import dying_with_parent
from worker.demo.traffic import Traffic
from worker.features.infer import infer_schema
from worker.model.learn import fit_bundle
from worker.model.network.fit import FitOptions
from worker.model.store.model_store import ModelStore

LABEL = "is_fraud"
TOPICS = {"payments": 2, "alerts": 1, "dead-letters": 1, "scores": 1}
HISTORY, MARCH = 3_000, 5_000
STEPS = 60  # of a fit: any model will do
BARE = ("README.md",)  # pages that begin with nothing but the recorded traffic
TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Prepared:
    """What every page begins with.

    folder     history.jsonl.gz and march.jsonl.gz; schema.toml and models/, which a bare page makes itself
    version    a version in models/ that is not the current one
    broker     where the topics of the pages are
    commands   folder with the client of the preloaded process
    """

    folder: Path
    version: str
    broker: Connection
    commands: Path


def _recorded(count: int, skip: int = 0) -> list[dict[str, object]]:
    marked = Planter(seed=0, spacing=100, live=False).plant(Traffic(0))
    return [{**payment, LABEL: int(planted is not None)} for payment, planted in islice(marked, skip, skip + count)]


@pytest.fixture(scope="session")
def prepared(kafka_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    folder = tmp_path_factory.mktemp("pages")
    history, march = _recorded(HISTORY), _recorded(MARCH, skip=HISTORY)
    for name, rows in (("history", history), ("march", march)):
        (folder / f"{name}.jsonl.gz").write_bytes(
            gzip.compress(b"\n".join(map(orjson.dumps, rows)) + b"\n", 1, mtime=0)
        )
    proposal = infer_schema(history, [LABEL])
    (folder / "schema.toml").write_text(proposal.to_toml(), encoding="utf-8")
    store = ModelStore(str(folder / "models"))
    options = [FitOptions(hidden=(24, 12, 24), steps=STEPS, seed=seed) for seed in (0, 1)]
    made = [fit_bundle(proposal.schema, history, each, created_at="2026-01-01T00:00:00.000Z") for each in options]
    for bundle in made:
        store.save(bundle)
        store.promote(bundle.version)
    connection = Connection(kafka_broker.bootstrap_servers, options=JOIN_FAST)
    ensure_topics(connection, TOPICS)
    produce_values(connection, "payments", [orjson.dumps({**row, LABEL: None}) for row in march])

    commands, sockets = tmp_path_factory.mktemp("bin"), Path(tempfile.mkdtemp(prefix="pages-"))
    address = sockets / "worker"  # a socket's path is short
    write_client(commands, address)
    command = dying_with_parent([sys.executable, "-m", "tests.docs.preloaded", str(address)])
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield Prepared(folder, made[0].version, connection, commands)
        server.kill()
    shutil.rmtree(sockets)


class Shell:
    """Runs the blocks of one page, one after the other in one folder."""

    def __init__(self, prepared: Prepared, page: str, folder: Path) -> None:
        self._prepared = prepared
        self.folder = folder / "page"
        bare = shutil.ignore_patterns("schema.toml", "models") if page in BARE else None
        shutil.copytree(prepared.folder, self.folder, ignore=bare)
        self._variables = {
            "PATH": f"{prepared.commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "120",
            "WORKER_KAFKA__BOOTSTRAP_SERVERS": prepared.broker.bootstrap_servers,
            "WORKER_KAFKA__INPUT_TOPIC": "payments",
            "WORKER_KAFKA__GROUP_ID": page,
            "WORKER_TRAIN__MIN_RECORDS": "500",
            "WORKER_TRAIN__INTERVAL_S": "1",
            "WORKER_MODEL__OPTIONS": orjson.dumps({"steps": STEPS}).decode(),
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
        } | {f"WORKER_KAFKA__OPTIONS__{name.upper()}": str(value) for name, value in JOIN_FAST.items()}

    def run(self, block: Block, prelude: str = "") -> str:
        """What a block prints. It ends at the first command that fails, and so does the test."""
        text = block.text.replace("broker:9092", self._prepared.broker.bootstrap_servers)
        script = f"set -euo pipefail\n{prelude}\n{text.replace('VERSION', self._prepared.version)}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self._variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{block} failed with {done.returncode}:\n{block.text}\n{done.stdout}"
        return done.stdout


@pytest.fixture
def make_shell(prepared: Prepared, tmp_path: Path) -> Callable[[str], Shell]:
    """A shell for the page of this name."""
    return lambda page: Shell(prepared, page, tmp_path)
