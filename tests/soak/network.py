"""S29: a network that loses, cuts, resets, crawls and delays.

Loss, cuts, resets and a low rate are the kernel's, in a network namespace of our own that holds clients and service
alike; the delay is a proxy's. No face may be wrong, every call must end by its deadline, and there must be answers
again within 2 s of the healing.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rosacea_client import FaceClient
from tests.conftest import ROOT
from tests.faults.cgroup import NotPermittedError
from tests.faults.history import History, violations
from tests.faults.netns import PRIVATELY, Wire, bring_up, check_permitted
from tests.faults.proxy import Proxy

from .clients import buy
from .orders import SEEDS, Order
from .report import Row
from .scene import FLAGS, Models
from .watched import Watched

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.faults.goldens import Want
    from tests.faults.history import Call

CLIENTS = 4
LOSS_PERCENT, CUT_SECONDS, KILOBITS, DELAY_SECONDS = 10, 5.0, 1000, 0.2
SPELL_SECONDS = 20.0  # how long it loses, crawls or delays
CALM_SECONDS = 3.0  # before and after
PATIENT_SECONDS, IMPATIENT_SECONDS = 60.0, 2.0
HEAL_SECONDS, SLACK = 2.0, 3  # the promise, and how much longer a busy machine may take
LATE_SECONDS = 2.0  # for a client to hear of its deadline on a busy machine
FACE_BITS = 8 * 64 * 64 * 3
EXCUSED = ("Unavailable", "DeadlineExceeded", "Overloaded")
PROMISE = "0 wrong faces, every call ends by its deadline, answers again"
PROMISE = f"{PROMISE} {HEAL_SECONDS:g} s after the healing (x{SLACK} on a busy machine)"


@dataclass
class Spell:
    """A time in which the network is bad, and what clients saw of it."""

    history: History
    began: float
    healed: float
    met: int = 0  # packets that the kernel lost or refused

    @property
    def within(self) -> list[Call]:
        """Calls that began and ended while it was bad."""
        return [call for call in self.history.calls if self.began < call.began and (call.ended or 0) < self.healed]

    @property
    def reconnect_seconds(self) -> float:
        """From the healing until the last of the clients had an answer again."""
        firsts: dict[str, float] = {}
        for call in self.history.calls:
            if call.ok and call.ended and call.ended > self.healed:
                firsts.setdefault(call.who, call.ended - self.healed)
        return max(firsts.values()) if len(firsts) == CLIENTS else math.inf


# Whether a spell did anything at all, in words; empty where it did not, for then the row proves nothing.
Effect = Callable[[Spell], str]


def lost(spell: Spell) -> str:
    return f"{spell.met} packets lost" if spell.met else ""


def silent(spell: Spell) -> str:
    return "" if any(call.ok for call in spell.within) or not spell.met else f"no answer, {spell.met} packets met"


def crawled(spell: Spell) -> str:
    kilobits = sum(len(call.got) for call in spell.within) * FACE_BITS / (spell.healed - spell.began) / 1000
    return f"{kilobits:.0f} kbit/s of pixels" if 0 < kilobits <= KILOBITS else ""


def waited(spell: Spell) -> str:
    fastest = min((call.seconds for call in spell.within if call.ok), default=0.0)
    return f"no call below {fastest:.2f} s" if fastest >= 2 * DELAY_SECONDS else ""


def network(folder: Path) -> list[Row]:
    """The rows of S29; those that need a namespace are skipped where there can be none."""
    models = Models.make(folder)
    with Watched([models.served], *FLAGS) as service:
        delay = asyncio.run(delayed(service.address, models.golden))
    try:
        check_permitted()
    except NotPermittedError as error:
        return [delay, *(Row(f"S29 {name}", PROMISE, "", skipped=str(error)) for name in PRIVATE)]
    told = folder / "rows.json"
    command = [*PRIVATELY, sys.executable, "-m", "tests.soak.network", str(folder), str(told)]
    subprocess.run(command, cwd=ROOT, check=True)
    return [delay, *(Row(**row) for row in json.loads(told.read_text()))]


async def delayed(address: str, golden: Mapping[Want, str]) -> Row:
    """200 ms each way."""
    async with Proxy(address) as proxy:

        def begin() -> None:
            proxy.delay_seconds = DELAY_SECONDS

        def heal() -> int:
            proxy.delay_seconds = 0.0
            return 0

        spell = await asyncio.to_thread(endure, proxy.address, begin, heal, SPELL_SECONDS, PATIENT_SECONDS)
    return row("delay", spell, golden, waited)


PRIVATE: dict[str, tuple[Callable[[Wire], None], float, float, Effect]] = {
    "loss": (lambda wire: wire.lose(LOSS_PERCENT), SPELL_SECONDS, PATIENT_SECONDS, lost),
    "rate": (lambda wire: wire.slow(KILOBITS), SPELL_SECONDS, PATIENT_SECONDS, crawled),
    "cut": (lambda wire: wire.cut(), CUT_SECONDS, IMPATIENT_SECONDS, silent),
    "reset": (lambda wire: wire.refuse(), CUT_SECONDS, IMPATIENT_SECONDS, silent),
}


def privately(folder: Path) -> list[Row]:
    """In a network namespace: every spell, one after the other."""
    bring_up()
    models = Models.make(folder / "private")
    rows = []
    with Watched([models.served], *FLAGS) as service, Wire(int(service.address.rpartition(":")[2])) as wire:
        for name, (begin, seconds, patience, effect) in PRIVATE.items():
            spell = endure(service.address, partial(begin, wire), wire.heal, seconds, patience)
            rows.append(row(name, spell, models.golden, effect))
    return rows


def endure(
    address: str, begin: Callable[[], None], heal: Callable[[], int], seconds: float, patience_seconds: float
) -> Spell:
    """Clients that ask all the time, before, during and after a spell of so many seconds."""
    history, stop = History(), threading.Event()
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client, address, history, patience_seconds, stop, number) for number in range(CLIENTS)]
        try:
            time.sleep(CALM_SECONDS)
            begin()
            began = time.monotonic()
            time.sleep(seconds)
            met = heal()
            spell = Spell(history, began, time.monotonic(), met)
            while spell.reconnect_seconds > time.monotonic() - spell.healed < patience_seconds:
                time.sleep(0.05)
            time.sleep(CALM_SECONDS)
        finally:
            stop.set()
        for each in clients:
            each.result()
    return spell


def client(address: str, history: History, patience_seconds: float, stop: threading.Event, number: int) -> None:
    """Asks for a few faces, over and over."""
    rng = random.Random(number)
    with FaceClient(address, timeout_seconds=patience_seconds) as faces:
        while not stop.wait(0.05):
            buy(faces, history, Order([rng.choice(SEEDS) for _ in range(rng.randint(1, 8))]), f"client {number}")


def row(name: str, spell: Spell, golden: Mapping[Want, str], effect: Effect) -> Row:
    """What a spell has shown."""
    broken = violations(spell.history, golden, allowed=EXCUSED, late_seconds=LATE_SECONDS)
    seen = effect(spell)
    if not seen:
        broken.append("the network was not bad: the row proves nothing")
    if spell.reconnect_seconds > SLACK * HEAL_SECONDS:
        broken.append(f"answers must come again within {HEAL_SECONDS:g} s, it took {spell.reconnect_seconds:.1f} s")
    measured = f"{seen}; calls ended {spell.history.errors()}; answers again after {spell.reconnect_seconds:.2f} s"
    print(f"{name}: {measured}", flush=True)
    return Row(f"S29 {name}", PROMISE, measured, broken)


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps([asdict(each) for each in privately(Path(sys.argv[1]))]))
