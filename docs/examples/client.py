#!/usr/bin/python3
"""Lists the networks, follows the signals, and adds a network.

    client.py [NAME BRIDGE ADDRESS]     e.g. client.py lab virbr5 192.168.150.1/24

Needs python3-dasbus. Adding needs root; the rest does not. Ends with Ctrl-C.
"""
import sys

from dasbus.connection import SystemMessageBus
from dasbus.error import DBusError
from dasbus.loop import EventLoop
from dasbus.typing import get_variant

SERVICE = "org.virtfirewall.NetworkFirewall1"
MANAGER = "/org/virtfirewall/NetworkFirewall1"

bus = SystemMessageBus()
manager = bus.get_proxy(SERVICE, MANAGER)


def show(path):
    network = bus.get_proxy(SERVICE, path)
    print(f"{network.Name}: {network.Bridge}, {network.ForwardMode}, "
          f"{', '.join(network.Addresses)}: {network.State}", flush=True)


# Follow first and list then, so that no network falls between the two.
manager.NetworkAdded.connect(lambda name, path: print("added", name, flush=True))
manager.NetworkRemoved.connect(lambda name, path: print("removed", name, flush=True))
manager.Repaired.connect(lambda name, cause: print("repaired", name, "after", cause, flush=True))

for path in manager.ListNetworks():
    show(path)

if len(sys.argv) == 4:
    name, bridge, address = sys.argv[1:]
    settings = {"Bridge": get_variant("s", bridge), "Addresses": get_variant("as", [address])}
    try:
        show(manager.AddNetwork(name, settings, {}))
    except DBusError as error:
        sys.exit(f"{name} was not added: {error}")

try:
    EventLoop().run()
except KeyboardInterrupt:
    pass
