"""A house with lights, for agents: a server of the Model Context Protocol on standard input and output.

    python home.py LOG

Every call is written to LOG, a line each.
"""

import json
import sys

LIGHT = {
    "name": "set_light",
    "description": "Turn a light on or off",
    "inputSchema": {
        "type": "object",
        "properties": {
            "room": {"type": "string", "description": "Name of the room"},
            "state": {"type": "string", "description": "on or off", "enum": ["on", "off"]},
        },
        "required": ["room", "state"],
    },
}


def answer(method, params, log):
    if method == "initialize":
        about = {"name": "home", "version": "1.0.0"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": about}
    if method == "tools/list":
        return {"tools": [LIGHT]}
    if method == "tools/call":
        log.write(json.dumps(params["arguments"]) + "\n")
        log.flush()
        return {"content": [{"type": "text", "text": '{"ok": true}'}]}
    return {}


with open(sys.argv[1], "a") as log:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message and "method" in message:
            result = answer(message["method"], message.get("params") or {}, log)
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
