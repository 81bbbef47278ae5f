"""D-Bus with the `dbus-fast` package: a question, and an answer as it comes.

    pip install dbus-fast
    python dbus_fast_ask.py
"""

import asyncio
import json
import os

from dbus_fast import BusType, Variant
from dbus_fast.aio import MessageBus

NAME, PATH = "org.gemmad.Gemmad1", "/org/gemmad/Gemmad1"
QUESTION = "What is the capital of France?"


async def main():
    # The answer's socket comes as a descriptor.
    bus = await MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect()
    service = bus.get_proxy_object(NAME, PATH, await bus.introspect(NAME, PATH))
    manager = service.get_interface(f"{NAME}.Manager")

    options = {"temperature": Variant("d", 0.0), "timeout": Variant("u", 300)}
    print(await manager.call_ask(QUESTION, options))

    request = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    _stream, fd = await manager.call_open_stream(json.dumps(request), {})
    with os.fdopen(fd) as lines:
        for line in lines:
            chunk = json.loads(line)
            if "error" in chunk:
                raise RuntimeError(chunk["error"]["message"])
            print(chunk["choices"][0]["delta"].get("content") or "", end="", flush=True)
    print()


asyncio.run(main())
