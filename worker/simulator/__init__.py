"""The venue simulator: a model of the venue on real sockets, scripted, deterministic under a seed."""

from worker.simulator.book import Order
from worker.simulator.floor import system_clock
from worker.simulator.ledger import CancelSeen, Received, Truth, Upgrade
from worker.simulator.load import ScriptError, load_script, read_script
from worker.simulator.script import (
    Behaviour,
    CancelItem,
    Cancels,
    Connect,
    Flow,
    Frames,
    Login,
    Placed,
    Rule,
    Script,
    Streams,
    Weighted,
)
from worker.simulator.session import Session
from worker.simulator.venue import Simulator, serve

__all__ = [
    "Behaviour",
    "CancelItem",
    "CancelSeen",
    "Cancels",
    "Connect",
    "Flow",
    "Frames",
    "Login",
    "Order",
    "Placed",
    "Received",
    "Rule",
    "Script",
    "ScriptError",
    "Session",
    "Simulator",
    "Streams",
    "Truth",
    "Upgrade",
    "Weighted",
    "load_script",
    "read_script",
    "serve",
    "system_clock",
]
