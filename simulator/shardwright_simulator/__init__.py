"""A strict fake Discord gateway: REST, websocket, faults, load and a ledger on one port."""

from __future__ import annotations

from shardwright_simulator.control import Control
from shardwright_simulator.errors import ConfigError, ControlError, NotFoundError, SimulatorError
from shardwright_simulator.faults import Action, Fault, Trigger
from shardwright_simulator.ids import make_token
from shardwright_simulator.load import LoadSpec
from shardwright_simulator.options import BotConfig, KeyOrder, Options, ResumeMode
from shardwright_simulator.records import Severity
from shardwright_simulator.simulator import Simulator

__all__ = [
    "Action",
    "BotConfig",
    "ConfigError",
    "Control",
    "ControlError",
    "Fault",
    "KeyOrder",
    "LoadSpec",
    "NotFoundError",
    "Options",
    "ResumeMode",
    "Severity",
    "Simulator",
    "SimulatorError",
    "Trigger",
    "make_token",
]
